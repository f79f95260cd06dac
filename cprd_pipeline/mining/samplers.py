"""Which items of a pool become candidates.

A pool is flat: the items of all queries one after the other, best first. Shape suffixes: N items of all pools, Q queries.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from cprd_pipeline.mining.settings import SamplerSettings


def choose(
    sampler: SamplerSettings,
    k: int,
    owners: Int64[np.ndarray, " N"],
    similarities: Float32[np.ndarray, " N"],
    draws: Float64[np.ndarray, " N"],
    scores: Float32[np.ndarray, " N"] | None = None,
) -> Bool[np.ndarray, " N"]:
    """Choose k items of each query's pool, or all when there are not so many.

    Args:
        sampler: How.
        k: Candidates a query.
        owners: Query of each item, ascending.
        similarities: Of each item, descending within a query.
        draws: A random number between 0 and 1 for each item.
        scores: The teacher's, for the sampler `teacher`.
    """
    if sampler.kind == "top":
        return _first(k, owners, np.arange(len(owners)))
    if sampler.kind == "random":
        return _first(k, owners, np.lexsort((draws, owners)))
    if sampler.kind == "softmax":
        # Adding Gumbel noise to the logits and taking the k largest is drawing one after the other without replacement.
        # Source: Kool et al. 2019, arXiv:1903.06059.
        keys = similarities.astype(np.float64) / sampler.temperature - np.log(-np.log(draws))
        return _first(k, owners, np.lexsort((-keys, owners)))
    values = similarities if scores is None else scores
    return _first(k, owners, _spread(values.astype(np.float64), sampler.strata, owners, draws))


def _spread(
    values: Float64[np.ndarray, " N"], strata: int, owners: Int64[np.ndarray, " N"], draws: Float64[np.ndarray, " N"]
) -> Int64[np.ndarray, " N"]:
    """An order in which each query takes one random item of every range of values, the highest first, then a second one of each.

    A range that has no more items is passed over, so that its share goes to the others.
    """
    if not len(owners):
        return np.empty(0, dtype=np.int64)
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    lengths = np.diff(np.append(starts, len(owners)))
    highest = np.repeat(np.maximum.reduceat(values, starts), lengths)
    lowest = np.repeat(np.minimum.reduceat(values, starts), lengths)
    width = np.where(highest > lowest, highest - lowest, 1.0)
    stratum = np.minimum(((highest - values) / width * strata).astype(np.int64), strata - 1)
    by_draw = np.lexsort((draws, stratum, owners))
    runs = owners[by_draw] * strata + stratum[by_draw]
    begins = np.flatnonzero(np.diff(runs, prepend=-1))
    turn = np.empty(len(owners), dtype=np.int64)
    turn[by_draw] = np.arange(len(owners)) - np.repeat(begins, np.diff(np.append(begins, len(owners))))
    return np.asarray(np.lexsort((stratum, turn, owners)))


def _first(k: int, owners: Int64[np.ndarray, " N"], order: Int64[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """The first k items of each query, in an order that keeps the queries together."""
    places = np.arange(len(owners)) - np.searchsorted(owners, owners)
    chosen = np.empty(len(owners), dtype=np.bool_)
    chosen[order] = places < k
    return chosen
