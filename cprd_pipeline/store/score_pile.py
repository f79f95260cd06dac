"""Gathering the scores of one corpus: digests become row numbers, numbers are sorted, keys that occur twice become one."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cprd_pipeline.store.fingerprint import DigestArray, digest_keys
from cprd_pipeline.store.score_rows import first_and_lowest

_BUCKETS = 64
_SPREAD_ROWS = 1 << 20


class KnownScores(NamedTuple):
    """Scores of the pairs of one corpus.

    Args:
        codes: image row * number of captions + caption row; int64 [N], ascending, unique.
        scores: Raw teacher scores, float32 [N], higher is better.
    """

    codes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class RowIndex:
    """Rows by digest.

    Args:
        digests: Digest of each row; uint8 [N, 16], distinct.
    """

    def __init__(self, digests: DigestArray) -> None:
        keys = digest_keys(digests)
        self._rows = np.argsort(keys).astype(np.int64)
        self._keys = keys[self._rows]

    def find(self, digests: DigestArray) -> npt.NDArray[np.int64]:
        """Row of each digest, -1 where there is none; int64 [M]."""
        if not len(self._keys):
            return np.full(len(digests), -1, dtype=np.int64)
        wanted = digest_keys(digests)
        place = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[place] == wanted, self._rows[place], -1)


class ScorePile:
    """Pairs and scores in any order, in; `KnownScores`, out.

    Pairs are spread over ranges of image rows as they come, and each range is sorted by itself at the end, its memory
    given back before the next: the peak is twice the result.

    Args:
        images: Number of image rows.
        captions: Number of caption rows.
    """

    def __init__(self, images: int, captions: int) -> None:
        self._width = max(1, -(-images // _BUCKETS) * captions)
        self._buckets: list[list[KnownScores]] = [[] for _ in range(_BUCKETS)]
        self._waiting: list[KnownScores] = []
        self._waiting_rows = 0

    def add(self, codes: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> None:
        """Add pairs; int64 [N], float32 [N]."""
        self._waiting.append(KnownScores(codes, scores))
        self._waiting_rows += len(codes)
        if self._waiting_rows >= _SPREAD_ROWS:  # a small file's share of a bucket would be mostly Python objects
            self._spread()

    def _spread(self) -> None:
        if not self._waiting:
            return
        codes, scores = _joined(self._waiting)
        self._waiting, self._waiting_rows = [], 0
        bucket = (codes // self._width).astype(np.uint8)
        order = np.argsort(bucket, kind="stable")  # one byte wide and stable: NumPy counts instead of comparing
        ends = np.searchsorted(bucket[order], np.arange(_BUCKETS), side="right")
        for number, rows in enumerate(np.split(order, ends[:-1])):
            if len(rows):
                self._buckets[number].append(KnownScores(codes[rows], scores[rows]))

    def sorted(self) -> KnownScores:
        """All pairs, ascending; of a pair that came several times the lowest score. Empties the pile."""
        self._spread()
        total = sum(len(piece.codes) for pieces in self._buckets for piece in pieces)
        codes, scores = np.empty(total, dtype=np.int64), np.empty(total, dtype=np.float32)
        filled = 0
        for number, pieces in enumerate(self._buckets):
            if not pieces:
                continue
            self._buckets[number] = []
            found, values = _joined(pieces)
            pieces.clear()
            order, lowest = first_and_lowest(found, np.argsort(found), values)
            end = filled + len(order)
            codes[filled:end], scores[filled:end] = found[order], lowest
            filled = end
        return KnownScores(codes[:filled], scores[:filled])


def _joined(pieces: list[KnownScores]) -> KnownScores:
    return KnownScores(np.concatenate([piece.codes for piece in pieces]), np.concatenate([piece.scores for piece in pieces]))
