"""Scored pairs by query: compressed rows of items, the best first, built without holding all pairs twice.

Shape suffixes: R rows of the table, W rows of the other side, P pairs, L entries of the lists of some asked rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Rows

Items = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

_BLOCK_PAIRS = 1 << 19
"""Pairs that are sorted at once: what building needs beside the table itself."""


class Ragged(NamedTuple):
    """The lists of some rows, one after the other.

    Args:
        owner: Position of the row among those that were asked for, ascending; int64 [L].
        items: Item rows, each list by score, best first; int32 [L].
        scores: float32 [L].
        flagged: bool [L].
    """

    owner: Rows
    items: Items
    scores: Scores
    flagged: Flags


@runtime_checkable
class ScoredLists(Protocol):
    """What `PairTable` and `TurnedTable` both are."""

    @property
    def starts(self) -> Rows:
        """Where each row's list begins, and the number of pairs last; int64 [R + 1]."""

    @property
    def pairs(self) -> int:
        """Number of scored pairs."""

    @property
    def named(self) -> Flags:
        """Which items occur in any list; bool [W]."""

    def of(self, rows: Rows) -> Ragged:
        """The lists of some rows, int64 [Q], in any order, repeated or not."""


@dataclass(frozen=True)
class PairTable:
    """Scored pairs of contents as lists of queries.

    Each row's items are ordered by score, best first, ties by item row; each item occurs once.

    Args:
        starts: Where each row's list begins, and the number of pairs last; int64 [R + 1].
        items: Canonical rows of the other side; int32 [P].
        scores: Of the teacher; float32 [P].
        flagged: Probable false negatives; bool [P].
        width: Number of rows of the other side.
    """

    starts: Rows
    items: Items
    scores: Scores
    flagged: Flags
    width: int

    @property
    def pairs(self) -> int:
        """Number of scored pairs."""
        return len(self.items)

    @property
    def named(self) -> Flags:
        """Which items occur in any list; bool [W]."""
        # Marked, not sorted: there are as many items as scored pairs.
        found = np.zeros(self.width, dtype=np.bool_)
        found[self.items] = True
        return found

    def of(self, rows: Rows) -> Ragged:
        """The lists of some rows; costs no more than what it gives.

        Args:
            rows: Canonical rows, in any order, repeated or not; int64 [Q].
        """
        owner, flat = entries_of(self.starts, rows)
        return Ragged(owner, self.items[flat], self.scores[flat], self.flagged[flat])


class PairTableBuilder:
    """Builds a table from pairs that come in any order, some at a time: all of them are counted first, then all are placed.

    Where a pair occurs twice, the lower score and any flag count.

    Args:
        rows: Number of query rows.
        width: Number of item rows.
    """

    def __init__(self, rows: int, width: int) -> None:
        self._width = width
        self._counts = np.zeros(rows, dtype=np.int64)
        self._next: Rows | None = None

    def count(self, rows: npt.NDArray[np.integer]) -> None:
        """Announce pairs by their query rows, int [N]."""
        np.add.at(self._counts, rows, 1)

    def place(self, rows: npt.NDArray[np.integer], items: npt.NDArray[np.integer], scores: Scores, flagged: Flags) -> None:
        """Add pairs, all of which were counted.

        Args:
            rows: Canonical query rows, int [N].
            items: Canonical item rows, int [N].
            scores: float32 [N].
            flagged: bool [N].
        """
        cursors = self._cursors()
        order = np.argsort(rows, kind="stable")
        different, first, counts = np.unique(rows[order], return_index=True, return_counts=True)
        places = np.arange(len(rows)) + np.repeat(cursors[different] - first, counts)
        cursors[different] += counts
        self._items[places], self._scores[places], self._flagged[places] = items[order], scores[order], flagged[order]

    def finish(self) -> PairTable:
        """The table; the builder is spent."""
        ends = self._cursors()
        begins = ends - self._counts
        lengths, done = np.zeros(len(ends), dtype=np.int64), 0
        # In place: what a block keeps is never more than what it was.
        for block in row_blocks(np.append(begins, ends[-1:])):
            inside = slice(int(begins[block[0]]), int(ends[block[-1]]))
            owner = np.repeat(block, self._counts[block])
            owner, *kept = _settle(owner, self._items[inside], self._scores[inside], self._flagged[inside])
            lengths[block] = np.bincount(owner - block[0], minlength=len(block))
            there = slice(done, done + len(owner))
            self._items[there], self._scores[there], self._flagged[there] = kept
            done = there.stop
        for array in (self._items, self._scores, self._flagged):
            array.resize(done, refcheck=False)  # gives the memory of repeated pairs back
        return PairTable(np.append(0, np.cumsum(lengths)), self._items, self._scores, self._flagged, self._width)

    def _cursors(self) -> Rows:
        """Where the next pair of each row goes; makes room when the first pair comes."""
        if self._next is None:
            total = int(self._counts.sum())
            self._next = np.cumsum(self._counts) - self._counts
            self._items, self._scores = np.empty(total, dtype=np.int32), np.empty(total, dtype=np.float32)
            self._flagged = np.empty(total, dtype=np.bool_)
        return self._next


def entries_of(starts: Rows, rows: Rows) -> tuple[Rows, Rows]:
    """Where the lists of some rows lie.

    Args:
        starts: Where each row's list begins, and the number of pairs last; int64 [R + 1].
        rows: In any order, repeated or not; int64 [Q].

    Returns:
        For each entry of the lists, one list after the other, the position of its row among those asked and its place in the table.
    """
    begins = starts[rows]
    lengths = starts[rows + 1] - begins
    owner = np.repeat(np.arange(len(rows)), lengths)
    return owner, np.arange(len(owner)) + np.repeat(begins - (np.cumsum(lengths) - lengths), lengths)


def row_blocks(starts: Rows) -> Iterator[Rows]:
    """All rows in order, some at a time, so that no block has many pairs; a row that is longer is alone in its block.

    Args:
        starts: Where each row's list begins, and the number of pairs last; int64 [R + 1].
    """
    begin, rows = 0, len(starts) - 1
    while begin < rows:
        end = int(np.searchsorted(starts, starts[begin] + _BLOCK_PAIRS, side="right")) - 1
        end = max(end, begin + 1)
        yield np.arange(begin, end)
        begin = end


def _settle(owner: Rows, items: Items, scores: Scores, flagged: Flags) -> tuple[Rows, Items, Scores, Flags]:
    """Each pair once, each row's pairs by score; the arguments are whole rows, ordered by row."""
    if not len(owner):
        return owner, items, scores, flagged
    code = (owner - owner[0]) * (int(items.max()) + 1) + items
    order = np.argsort(code)
    first = np.flatnonzero(np.diff(code[order], prepend=-1))
    owner, items = owner[order][first], items[order][first]
    scores, flagged = np.minimum.reduceat(scores[order], first), np.logical_or.reduceat(flagged[order], first)
    # Items ascend within a row by now, and the sort is stable.
    by_score = np.lexsort((-scores, owner))
    return owner[by_score], items[by_score], scores[by_score], flagged[by_score]
