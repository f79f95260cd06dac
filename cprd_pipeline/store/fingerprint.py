"""Digests of what makes a number the same number."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

DIGEST_BYTES = 16

DigestArray = npt.NDArray[np.uint8]
"""Digests as rows: uint8 [N, 16]. Not NumPy's `S16`, which drops trailing zero bytes."""


def bytes_digest(content: bytes) -> bytes:
    """BLAKE2b of bytes, 16 bytes long: the key of an image (original file bytes) or a caption (UTF-8)."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def json_digest(content: Any) -> str:
    """Digest of a JSON value in canonical form (sorted keys, no spaces), 32 hex digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return bytes_digest(text.encode()).hex()


def stack_digests(digests: Iterable[bytes]) -> DigestArray:
    """Digests as a uint8 [N, 16] array."""
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def digest_keys(digests: DigestArray) -> npt.NDArray[Any]:
    """Digests as values that NumPy sorts and compares fast: `S16` [N].

    Only for sorting, searching and grouping: `S16` drops trailing zero bytes when it is turned into Python's bytes,
    yet two different digests never become equal keys, since all are 16 bytes long.
    """
    return np.ascontiguousarray(digests).view(f"S{DIGEST_BYTES}").ravel()
