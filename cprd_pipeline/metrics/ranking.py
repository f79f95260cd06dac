"""The rank of every positive, in both directions from one look at the similarities.

Shape suffixes: Q queries, N items, D embedding width, T thresholds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int64

from cprd_pipeline.metrics.positives import Positives
from cprd_pipeline.metrics.similarities import error_bound, pair_similarities, tile_similarities

# A float32 tile of 4 MB stays in the cache while it is compared; both edges must stay below 2^16 for the counts below.
_TILE_ROWS = 256
_TILE_COLUMNS = 4096
# Beyond this share of unclear comparisons (a model that collapsed) a float64 matrix product is cheaper than pair by pair.
_UNCLEAR_SHARE = 1 / 64


@dataclass(frozen=True)
class RankedPositives:
    """Where a model ranks each query's positives.

    Args:
        positives: Right answers of Q queries among N items.
        ranks: Rank of each of `positives.items` among all N items, from 1 (best) to N; distinct within a query; int64 [P].
    """

    positives: Positives
    ranks: Int64[np.ndarray, " P"]


def rank_both_directions(
    images_ID: Float32[np.ndarray, "I D"], captions_CD: Float32[np.ndarray, "C D"], positives: Positives
) -> tuple[RankedPositives, RankedPositives]:
    """Ranks of all positives when images ask for captions, and when captions ask for images.

    Ties count against the model: an item that is no positive of the query and just as similar ranks before the positive.
    Positives rank among each other by similarity. Each similarity is computed once and serves both directions; memory
    does not grow with I x C.

    Args:
        images_ID: Embeddings of the images, finite; may be memory-mapped.
        captions_CD: Embeddings of the captions, finite; may be memory-mapped.
        positives: Caption rows of each image. An image or caption without a positive is only a wrong answer of others.

    Returns:
        Image to text, then text to image. Equal for every tile size and thread count.
    """
    reverse = positives.transposed()
    by_image = _Thresholds.of(images_ID, captions_CD, positives)
    by_caption = _Thresholds.of(captions_CD, images_ID, reverse)
    for tile in _tiles(images_ID, captions_CD):
        by_image.count(tile)
        by_caption.count(tile.transposed())
    return by_image.ranked(), by_caption.ranked()


def rank_positives(
    queries_QD: Float32[np.ndarray, "Q D"], items_ND: Float32[np.ndarray, "N D"], positives: Positives
) -> RankedPositives:
    """Ranks of all positives of one direction; otherwise as `rank_both_directions`."""
    thresholds = _Thresholds.of(queries_QD, items_ND, positives)
    for tile in _tiles(queries_QD, items_ND):
        thresholds.count(tile)
    return thresholds.ranked()


@dataclass(frozen=True)
class _Tile:
    """Similarities of a run of queries with a run of items; `first_*` are the rows where the runs begin."""

    first_query: int
    first_item: int
    queries: Float32[np.ndarray, "q D"]
    items: Float32[np.ndarray, "n D"]
    approximate: Float32[np.ndarray, "q n"]
    margin: np.float32

    @cached_property
    def exact(self) -> Float32[np.ndarray, "q n"]:
        return tile_similarities(self.queries, self.items)

    def transposed(self) -> "_Tile":
        return _Tile(self.first_item, self.first_query, self.items, self.queries, self.approximate.T, self.margin)


def _tiles(queries_QD: Float32[np.ndarray, "Q D"], items_ND: Float32[np.ndarray, "N D"]) -> Iterator[_Tile]:
    margin = error_bound(queries_QD, items_ND)
    for first_query in range(0, len(queries_QD), _TILE_ROWS):
        # A memory map is read once a tile; its subclass would slow down every operation that follows.
        queries = np.asarray(queries_QD[first_query : first_query + _TILE_ROWS])
        for first_item in range(0, len(items_ND), _TILE_COLUMNS):
            items = np.asarray(items_ND[first_item : first_item + _TILE_COLUMNS])
            yield _Tile(first_query, first_item, queries, items, queries @ items.T, margin)


class _Thresholds:
    """For each positive the number of items that are at least as similar to its query.

    Args:
        positives: The positives.
        similarities: Of each; float32 [P].
    """

    def __init__(self, positives: Positives, similarities: Float32[np.ndarray, " P"]) -> None:
        self._positives = positives
        self._similarities = similarities
        self._reached_by = np.zeros(len(similarities), dtype=np.int64)

    @classmethod
    def of(
        cls, queries_QD: Float32[np.ndarray, "Q D"], items_ND: Float32[np.ndarray, "N D"], positives: Positives
    ) -> "_Thresholds":
        return cls(positives, pair_similarities(queries_QD, items_ND, positives.queries, positives.items))

    def count(self, tile: _Tile) -> None:
        """Count the tile's items."""
        counts = self._positives.counts[tile.first_query : tile.first_query + len(tile.queries)]
        first = self._positives.offsets[tile.first_query : tile.first_query + len(tile.queries)]
        for nth in range(counts.max(initial=0)):
            rows = np.flatnonzero(counts > nth)
            self._count_nth(tile, rows, first[rows] + nth)

    def _count_nth(self, tile: _Tile, rows: Int64[np.ndarray, " R"], thresholds: Int64[np.ndarray, " R"]) -> None:
        """Count the tile's items against one threshold for each of some of its queries."""
        level = self._similarities[thresholds][:, None]
        similarities = _take(tile.approximate, rows)
        surely = similarities > level + tile.margin
        unclear = (similarities >= level - tile.margin) ^ surely
        unclear_rows, items = _nonzero(unclear)
        if len(items) > _UNCLEAR_SHARE * unclear.size:
            self._reached_by[thresholds] += _row_sums(_take(tile.exact, rows) >= level)
            return
        exact = pair_similarities(tile.queries, tile.items, rows[unclear_rows], items)
        reached = unclear_rows[exact >= level[unclear_rows, 0]]
        self._reached_by[thresholds] += _row_sums(surely) + np.bincount(reached, minlength=len(rows))

    def ranked(self) -> RankedPositives:
        """Ranks once all tiles were counted."""
        queries = self._positives.queries
        best_first = np.lexsort((-self._similarities, queries))
        places = np.arange(len(queries))
        keys = queries[best_first], self._similarities[best_first]
        ends_tie = np.append(np.logical_or(*(key[1:] != key[:-1] for key in keys)), True)
        last_tied = np.flatnonzero(ends_tie)
        # Positives of one query that tie were all counted for each other, so each stands at the rank of the last of them.
        behind = last_tied[np.searchsorted(last_tied, places)] - places
        ranks = np.empty(len(queries), dtype=np.int64)
        ranks[best_first] = self._reached_by[best_first] - behind
        return RankedPositives(self._positives, ranks)


def _take(tile: Float32[np.ndarray, "q n"], rows: Int64[np.ndarray, " R"]) -> Float32[np.ndarray, "R n"]:
    """Some rows, without a copy when it is all of them."""
    return tile if len(rows) == len(tile) else tile[rows]


def _row_sums(marks: Bool[np.ndarray, "R n"]) -> Int64[np.ndarray, " R"]:
    """Marks in each row. NumPy adds short integers several at a time, Python-sized ones one by one: five times slower."""
    return np.asarray(np.add.reduce(marks.view(np.uint8), axis=1, dtype=np.uint16), dtype=np.int64)


def _nonzero(marks: Bool[np.ndarray, "R n"]) -> tuple[Int64[np.ndarray, " K"], Int64[np.ndarray, " K"]]:
    """Rows and columns of the marks, in the order of memory: NumPy skips runs of zeros in flat arrays only."""
    flat = np.flatnonzero(marks.ravel(order="K"))
    rows, columns = np.unravel_index(flat, marks.shape, order="C" if marks.flags.c_contiguous else "F")
    return rows.astype(np.int64), columns.astype(np.int64)
