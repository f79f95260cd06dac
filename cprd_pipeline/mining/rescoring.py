"""Inner products in float64 and the one order that items come in: the part of a search that nothing else shapes.

An inner product is summed in float64 and rounded to float32; items stand by (similarity descending, position ascending).

Shape suffixes: Q queries, F fetched items, D width, K wanted items, N any list.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

EMPTY = np.iinfo(np.int64).max
"""The sort key of no item."""
FETCHED_ITEMS = 1 << 22
"""Fetched items that are in memory together."""
# Vector elements of one rescoring tile: larger ones leave the processor's cache.
_TILE_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Excluded:
    """Positions that must not be found, per query.

    Args:
        offsets: Query q excludes `positions[offsets[q] : offsets[q + 1]]`; int64 [Q + 1].
        positions: int64 [N], distinct within a query.
    """

    offsets: Positions
    positions: Positions

    def counts(self) -> Positions:
        """Number of excluded positions of each query, int64 [Q]."""
        return np.diff(self.offsets)

    def of(self, queries: Positions) -> tuple[Positions, Positions]:
        """The exclusions of some queries as pairs (index into `queries`, position)."""
        counts = self.counts()[queries]
        owner = np.repeat(np.arange(len(queries)), counts)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return owner, self.positions[self.offsets[queries][owner] + within]


@dataclass(frozen=True)
class TopItems:
    """The best items of each query.

    Args:
        positions: int64 [Q, K]; only the first `counts[q]` of a row mean something.
        similarities: float32 [Q, K], descending; equal ones by position.
        counts: int64 [Q]; less than K where there are not so many items.
    """

    positions: Positions
    similarities: Vectors
    counts: Positions


def dot(left: Vectors, right: Vectors) -> npt.NDArray[np.float64]:
    """Inner products over the last axis in float64; einsum's order of summation depends on nothing but D."""
    product: npt.NDArray[np.float64] = np.einsum("...d,...d->...", left.astype(np.float64), right.astype(np.float64))
    return product


def pair_similarities(vectors: Vectors, queries: Vectors, rows: Positions, positions: Positions) -> Vectors:
    """Inner products of pairs, computed as `rank` does.

    Args:
        vectors: The items, float32 [N, D].
        queries: float32 [Q, D].
        rows: Query of each pair, int64.
        positions: Item of each pair, int64.

    Returns:
        float32, one a pair.
    """
    result = np.empty(len(rows), dtype=np.float32)
    step = max(1, _TILE_ELEMENTS // vectors.shape[1])
    for start in range(0, len(rows), step):
        pairs = slice(start, start + step)
        result[pairs] = dot(vectors[positions[pairs]], queries[rows[pairs]])
    return result


def rank(vectors: Vectors, queries: Vectors, positions: Positions, owners: Positions, unwanted: Positions, k: int) -> Positions:
    """Sort keys of each query's best items, best first; `unpack` reads them.

    Args:
        vectors: The items, float32 [N, D].
        queries: float32 [Q, D].
        positions: What was fetched for each query, int64 [Q, F], distinct in a row; negative where nothing was.
        owners: Index into `queries` of each exclusion, int64.
        unwanted: Position of each exclusion, int64.
        k: Wanted items.

    Returns:
        int64 [Q, min(F, k)]; `EMPTY` where there is no further item.
    """
    missing = positions < 0
    keys = _pack(_rescore(vectors, queries, np.maximum(positions, 0)), positions)
    keys[missing] = EMPTY
    _blank(keys, positions, owners, unwanted)
    keys.sort(axis=1)
    return keys[:, :k]


def unpack(keys: Positions) -> TopItems:
    """What sort keys stand for."""
    counts = (keys != EMPTY).sum(axis=1)
    return TopItems(keys & 0xFFFFFFFF, key_similarities(keys), counts)


def key_similarities(keys: Positions) -> Vectors:
    """The similarities in sort keys, float32 of the same shape; meaningless for `EMPTY`."""
    ordered = ~(keys >> 32).astype(np.int32)
    return np.where(ordered >= 0, ordered, ordered ^ np.int32(0x7FFFFFFF)).astype(np.int32).view(np.float32)


def _rescore(vectors: Vectors, queries: Vectors, positions: Positions) -> Vectors:
    """Inner products in float64, rounded to float32: [Q, F]."""
    result = np.empty(positions.shape, dtype=np.float32)
    columns = min(positions.shape[1], max(1, _TILE_ELEMENTS // queries.shape[1]))
    lines = max(1, _TILE_ELEMENTS // (columns * queries.shape[1]))
    for top in range(0, positions.shape[0], lines):
        for left in range(0, positions.shape[1], columns):
            tile = slice(top, top + lines), slice(left, left + columns)
            items = np.take(vectors, positions[tile], axis=0)
            result[tile] = dot(items, queries[tile[0], None, :])
    return result


def _pack(similarities: Vectors, positions: Positions) -> Positions:
    """One int64 an item that sorts by (similarity descending, position ascending): sorting it is fast, and it is all there is."""
    # Adding zero turns -0.0 into 0.0, which must tie. The bits of negative floats run backwards.
    bits: npt.NDArray[Any] = (similarities + np.float32(0)).view(np.int32)
    ordered = np.where(bits >= 0, bits, bits ^ np.int32(0x7FFFFFFF))
    keys: Positions = (~ordered).astype(np.int64) << 32 | positions
    return keys


def _blank(keys: Positions, positions: Positions, owners: Positions, unwanted: Positions) -> None:
    """Empty the keys of excluded items, in place."""
    step = max(1, FETCHED_ITEMS // positions.shape[1])
    for start in range(0, len(owners), step):
        lines = owners[start : start + step]
        line, column = np.nonzero(positions[lines] == unwanted[start : start + step, None])
        keys[lines[line], column] = EMPTY
