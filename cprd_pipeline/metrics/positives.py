"""Which items are right for which query: any number per query, never one to one."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int64


@dataclass(frozen=True)
class Positives:
    """Positives of Q queries among N items, grouped by query.

    Args:
        offsets: Where each query's items begin; int64 [Q + 1], ascending from 0.
        items: Item rows, ascending and distinct within a query; int64 [P].
        item_count: N.
    """

    offsets: Int64[np.ndarray, " Q_plus_1"]
    items: Int64[np.ndarray, " P"]
    item_count: int

    @classmethod
    def from_pairs(cls, pairs: Int64[np.ndarray, "P 2"], query_count: int, item_count: int) -> "Positives":
        """Group (query row, item row) pairs, in any order and possibly repeated."""
        codes = np.unique(pairs[:, 0] * item_count + pairs[:, 1])
        counts = np.bincount(codes // item_count, minlength=query_count)
        return cls(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), codes % item_count, item_count)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def counts(self) -> Int64[np.ndarray, " Q"]:
        """Number of positives of each query."""
        return np.diff(self.offsets)

    @cached_property
    def queries(self) -> Int64[np.ndarray, " P"]:
        """The query row of each positive."""
        return np.repeat(np.arange(len(self)), self.counts)

    @cached_property
    def answerable(self) -> Int64[np.ndarray, " A"]:
        """Rows of the queries that have a positive, ascending."""
        return np.flatnonzero(self.counts)

    def transposed(self) -> "Positives":
        """The same pairs asked the other way round: items become queries and queries become items."""
        pairs = np.stack([self.items, self.queries], axis=1)
        return Positives.from_pairs(pairs, self.item_count, len(self))

    def part(self, query_rows: Int64[np.ndarray, " q"], item_rows: Int64[np.ndarray, " n"]) -> "Positives":
        """The positives among some queries and some items, both renumbered from 0.

        Args:
            query_rows: Queries that stay, ascending and distinct.
            item_rows: Items that stay, ascending and distinct.
        """
        stay = np.isin(self.queries, query_rows) & np.isin(self.items, item_rows)
        sides = np.searchsorted(query_rows, self.queries[stay]), np.searchsorted(item_rows, self.items[stay])
        return Positives.from_pairs(np.stack(sides, axis=1).astype(np.int64), len(query_rows), len(item_rows))

    def of_queries(self, run: slice) -> "Positives":
        """The positives of a run of queries, which are renumbered from 0."""
        offsets = self.offsets[run.start : run.stop + 1]
        return Positives(offsets - offsets[0], self.items[offsets[0] : offsets[-1]], self.item_count)

    def contain(self, query_rows: Int64[np.ndarray, " K"], item_rows: Int64[np.ndarray, " K"]) -> Bool[np.ndarray, " K"]:
        """Whether each (query, item) pair is a positive."""
        codes = self.queries * self.item_count + self.items
        wanted = query_rows * self.item_count + item_rows
        if not len(codes):
            return np.zeros(len(wanted), dtype=np.bool_)
        found = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        return np.asarray(codes[found] == wanted)
