"""One side of a split seen by content: which ids are the same picture or the same text."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.corpus.lookup import IdLookup
from cprd_pipeline.corpus.reader import Items, Rows
from cprd_pipeline.store.fingerprint import digest_keys

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Contents:
    """The distinct contents of a side; a content's position is its rank by its lowest id.

    Args:
        ids: Ids of the split's rows, in corpus order; [N].
        id_rank: Rank of each row's id among them, int64 [N].
        of_row: Position of each row's content, int64 [N].
        first: Row with the lowest id of each content, int64 [G].
        members: Rows grouped by content, by id within one, int64 [N].
        offsets: Content g has `members[offsets[g] : offsets[g + 1]]`, int64 [G + 1].
    """

    ids: pa.LargeStringArray
    id_rank: Positions
    of_row: Positions
    first: Positions
    members: Positions
    offsets: Positions

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def lookup(self) -> IdLookup:
        """Finds rows by their ids; made once for all who ask."""
        return IdLookup(self.ids)

    @property
    def copies(self) -> Positions:
        """How many rows have each content, int64 [G]."""
        return np.diff(self.offsets)


def group_contents(items: Items, rows: Rows) -> Contents:
    """Group rows of a corpus by content.

    Args:
        items: Images or captions of the corpus.
        rows: The split's rows, ascending; int64 [N].
    """
    ids = items.arrow_ids.take(pa.array(rows))
    # Sorted as UTF-8 bytes, which is the order of Python's strings too.
    by_id = pc.array_sort_indices(ids).to_numpy().astype(np.int64)
    _, first, group, copies = np.unique(
        digest_keys(items.digests[rows][by_id]), return_index=True, return_inverse=True, return_counts=True
    )
    # np.unique numbers the contents by digest; number them by their lowest id instead.
    by_lowest_id = np.argsort(first)
    sorted_positions = np.argsort(by_lowest_id)[group]
    of_row = np.empty(len(rows), dtype=np.int64)
    of_row[by_id] = sorted_positions
    id_rank = np.empty(len(rows), dtype=np.int64)
    id_rank[by_id] = np.arange(len(rows))
    members = by_id[np.argsort(sorted_positions, kind="stable")]
    offsets = np.concatenate([[0], np.cumsum(copies[by_lowest_id])])
    return Contents(ids, id_rank, of_row, by_id[first[by_lowest_id]], members, offsets)
