"""Random numbers that depend on a seed, a query's id and an item's content, and on nothing else.

No generator has a state that a resumed run would have to find again, and no draw depends on which other queries or
items are there. Shape suffix: N pairs.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64, UInt64

from cprd_pipeline.store.fingerprint import DigestArray, bytes_digest, stack_digests

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


def query_keys(seed: int, ids: Iterable[str]) -> UInt64[np.ndarray, " N"]:
    """A key of each query.

    Args:
        seed: Of the run.
        ids: Of the queries.
    """
    return item_keys(stack_digests(bytes_digest(f"{seed}\0{name}".encode()) for name in ids))


def item_keys(digests: DigestArray) -> UInt64[np.ndarray, " N"]:
    """A key of each item.

    Args:
        digests: Of their contents, uint8 [N, 16].
    """
    return np.ascontiguousarray(digests[:, :8]).view(np.dtype("<u8")).ravel().astype(np.uint64)


def uniform(queries: UInt64[np.ndarray, " N"], items: UInt64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """A number strictly between 0 and 1 for each pair.

    Args:
        queries: Their keys.
        items: Their keys.

    Source: the finaliser of SplitMix64, Steele et al. 2014, doi:10.1145/2660193.2660195.
    """
    mixed = _mix(_mix(queries) ^ items)
    return np.asarray(((mixed >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52)


def _mix(values: UInt64[np.ndarray, " N"]) -> UInt64[np.ndarray, " N"]:
    values = values + _STEP
    values = (values ^ (values >> _SHIFTS[0])) * _FACTORS[0]
    values = (values ^ (values >> _SHIFTS[1])) * _FACTORS[1]
    return np.asarray(values ^ (values >> _SHIFTS[2]))
