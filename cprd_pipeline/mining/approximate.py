"""Search through an approximate FAISS index, whose finds are ranked by their true similarity.

The index says which items to look at, never how similar they are: what comes back has the similarities and the order of
exact search. On the CPU the same index file gives the same items whatever the blocks and threads. A query that comes back
short looks further; where the index leads to nothing more its list stays short, and says so by its count.

Shape suffixes: Q queries, F fetched items, D width, K wanted items.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np

from cprd_pipeline.mining.gpus import GPU_MAX_ITEMS, place
from cprd_pipeline.mining.index_file import StoredIndex
from cprd_pipeline.mining.rescoring import (
    EMPTY,
    FETCHED_ITEMS,
    Excluded,
    Positions,
    TopItems,
    Vectors,
    pair_similarities,
    rank,
    unpack,
)
from cprd_pipeline.mining.search import GROWTH, MARGIN


@runtime_checkable
class Finder(Protocol):
    """What finds items in an index."""

    gpus: tuple[int, ...]
    left_to_cpu: int
    parameters: dict[str, int]

    def find(self, queries: Vectors, fetch: int, growth: int) -> Positions:
        """The best items by the index' own similarity, int64 [Q, F]; -1 where there is no further one."""

    def is_exhausted(self, growth: int) -> bool:
        """Whether more growth finds nothing more."""


class ApproximateSearch:
    """Inner-product search that finds most of what there is; a `Search`.

    Args:
        vectors: float32 [N, D], finite; may be memory-mapped.
        stored: Their index.
        finder: Of that index.
        recipe: What the index was built with, as JSON.
        query_block: Queries searched together.
        refine: Items fetched per wanted item.
    """

    def __init__(
        self, vectors: Vectors, stored: StoredIndex, finder: Finder, recipe: dict[str, Any], *, query_block: int, refine: int
    ) -> None:
        self._vectors = vectors
        self._stored = stored
        self._finder = finder
        self._recipe = recipe
        self._query_block = query_block
        self._refine = refine

    def __len__(self) -> int:
        return len(self._vectors)

    def top(self, queries: Vectors, k: int, excluded: Excluded) -> TopItems:
        """See `Search.top`."""
        keys = np.full((len(queries), k), EMPTY, dtype=np.int64)
        for start in range(0, len(queries), self._query_block):
            rows = np.arange(start, min(start + self._query_block, len(queries)))
            self._fill(keys, queries, rows, k, excluded)
        return unpack(keys)

    def similarities(self, queries: Vectors, rows: Positions, positions: Positions) -> Vectors:
        """See `Search.similarities`."""
        return pair_similarities(self._vectors, queries, rows, positions)

    def describe(self) -> dict[str, Any]:
        """See `Search.describe`; `reused`: whether the index was there already; `freed_bytes`: of older ones that went for it."""
        parameters = {name: value for name, value in self._recipe.items() if name != "kind"}
        return {
            "kind": self._recipe["kind"],
            "parameters": parameters | self._finder.parameters | {"refine": self._refine},
            **place(self._finder.gpus, self._finder.left_to_cpu),
            "bytes": self._stored.bytes,
            "build_seconds": self._stored.build_seconds,
            "reused": self._stored.reused,
            "freed_bytes": self._stored.freed_bytes,
        }

    def _fill(self, keys: Positions, queries: Vectors, rows: Positions, k: int, excluded: Excluded) -> None:
        # How much is fetched decides what is found, so it may depend on the query alone, not on those beside it.
        spare = _power_of_two(excluded.counts()[rows])
        for size in np.unique(spare):
            self._fill_alike(keys, queries, rows[spare == size], k, int(size), excluded)

    def _fill_alike(self, keys: Positions, queries: Vectors, pending: Positions, k: int, spare: int, excluded: Excluded) -> None:
        """Fill the keys of queries that exclude up to `spare` items each."""
        fetch = min(len(self), (k + MARGIN) * self._refine + spare)
        if self._finder.gpus and k + MARGIN + spare <= GPU_MAX_ITEMS:
            # A little less to refine from is better than the CPU in place of the GPUs.
            fetch = min(fetch, GPU_MAX_ITEMS)
        step = max(1, FETCHED_ITEMS // fetch)
        growth = 1
        while len(pending):
            for start in range(0, len(pending), step):
                rows = pending[start : start + step]
                block = queries[rows]
                found = rank(self._vectors, block, self._finder.find(block, fetch, growth), *excluded.of(rows), k)
                keys[rows, : found.shape[1]] = found
            if self._finder.is_exhausted(growth):
                return
            pending = pending[(keys[pending] == EMPTY).any(axis=1)]
            growth *= GROWTH


def _power_of_two(counts: Positions) -> Positions:
    """The next power of two, and 0 for 0."""
    rounded: Positions = np.where(counts > 0, 1 << np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64), 0)
    return rounded
