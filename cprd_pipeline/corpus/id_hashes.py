"""Hashes of many ids at once; in NumPy, since Arrow offers none, and importing Polars takes longer than a small run's look-ups."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]

_WORD = 8
# Which bytes of a word are the id's where so many of its bytes are left.
_INSIDE = np.array([(1 << 8 * left) - 1 for left in range(_WORD + 1)], dtype=np.uint64)
# An odd number whose bits have no pattern; the other two, with the shift, are how MurmurHash3 ends.
_STEP, _FIRST, _SECOND = (np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53))
_SHIFT = np.uint64(33)


def id_hashes(ids: pa.LargeStringArray) -> Hashes:
    """Hash of each id, uint64 [N]: equal ids have equal hashes, and hardly any others have. A null's hash means nothing.

    Args:
        ids: Some ten thousand at a time, since their bytes are copied.
    """
    offsets = np.frombuffer(ids.buffers()[1], dtype=np.int64)[ids.offset : ids.offset + len(ids) + 1]
    words = _words(ids.buffers()[2], int(offsets[0]), int(offsets[-1]))
    at, left = offsets[:-1] - offsets[0], np.diff(offsets)
    hashes = left.astype(np.uint64)
    while len(longer := np.flatnonzero(left > 0)):
        rows = slice(None) if len(longer) == len(left) else longer
        mixed = (hashes[rows] ^ (words[at[rows]] & _INSIDE[np.minimum(left[rows], _WORD)])) * _STEP
        hashes[rows] = mixed ^ (mixed >> _SHIFT)
        at += _WORD
        left -= _WORD
    for factor in (_FIRST, _SECOND):
        hashes = (hashes ^ (hashes >> _SHIFT)) * factor
    return hashes ^ (hashes >> _SHIFT)


def _words(content: pa.Buffer | None, start: int, stop: int) -> npt.NDArray[np.uint64]:
    """The eight bytes from each byte on, zeros after the last; uint64 [stop - start + 1]."""
    padded = np.zeros(stop - start + _WORD, dtype=np.uint8)
    if content is not None:
        padded[:-_WORD] = np.frombuffer(content, dtype=np.uint8)[start:stop]
    return np.ndarray(len(padded) - _WORD + 1, "<u8", padded, strides=(1,))
