"""A table of scored pairs seen from the other side: an order of its entries, so that scores and items are held once.

Shape suffixes: R rows of this view (the table's items), P pairs.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.distillation.pair_table import Flags, PairTable, Ragged, entries_of, row_blocks


@dataclass(frozen=True)
class TurnedTable:
    """Scored pairs by item; the lists are ordered as in `PairTable`: by score, best first, ties by the table's row.

    Args:
        table: Who holds the pairs.
        starts: Where each row's list begins, and the number of pairs last; int64 [R + 1].
        entries: Places in the table; int32 [P], int64 where a table has more than 2^31 - 1 pairs.
    """

    table: PairTable
    starts: Rows
    entries: npt.NDArray[np.integer]

    @classmethod
    def of_table(cls, table: PairTable) -> "TurnedTable":
        """Turn a table; beside the result it takes what blocks of pairs need."""
        blocks = [slice(int(table.starts[rows[0]]), int(table.starts[rows[-1] + 1])) for rows in row_blocks(table.starts)]
        counts = np.zeros(table.width, dtype=np.int64)
        for block in blocks:
            np.add.at(counts, table.items[block], 1)
        starts = np.append(0, np.cumsum(counts))
        small = table.pairs <= np.iinfo(np.int32).max
        entries: npt.NDArray[np.integer] = np.empty(table.pairs, dtype=np.int32 if small else np.int64)
        cursors = starts[:-1].copy()
        for block in blocks:
            order = np.argsort(table.items[block], kind="stable")
            named, first, found = np.unique(table.items[block][order], return_index=True, return_counts=True)
            places = np.arange(len(order)) + np.repeat(cursors[named] - first, found)
            cursors[named] += found
            entries[places] = order + block.start
        for rows in row_blocks(starts):
            inside = slice(int(starts[rows[0]]), int(starts[rows[-1] + 1]))
            # Entries of a list ascend with the table's rows by now, and the sort is stable.
            by_score = np.lexsort((-table.scores[entries[inside]], np.repeat(rows, counts[rows])))
            entries[inside] = entries[inside][by_score]
        return cls(table, starts, entries)

    @property
    def pairs(self) -> int:
        """Number of scored pairs."""
        return len(self.entries)

    @property
    def named(self) -> Flags:
        """Which items occur in any list; bool, one for each of the table's rows."""
        return np.diff(self.table.starts) > 0

    def of(self, rows: Rows) -> Ragged:
        """The lists of some rows; as `PairTable.of`."""
        owner, flat = entries_of(self.starts, rows)
        entries = self.entries[flat]
        items = (np.searchsorted(self.table.starts, entries, side="right") - 1).astype(np.int32)
        return Ragged(owner, items, self.table.scores[entries], self.table.flagged[entries])
