"""One direction of mining: from queries to the rows of the candidates table."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cprd_pipeline.mining.contents import Contents, Positions
from cprd_pipeline.mining.search import ExactSearch, Excluded, TopItems, Vectors
from cprd_pipeline.store.schemas import CANDIDATES

Direction = Literal["i2t", "t2i"]


@dataclass(frozen=True)
class Miner:
    """Finds candidates of one direction.

    Args:
        direction: Who asks: images (`i2t`) or captions (`t2i`).
        queries: The side that asks.
        query_vectors: float32 [N, D], one a row of `queries`.
        items: The side that is asked for.
        search: Search among the contents of `items`, in their order.
        positives: Contents of `items` that are positives, per content of `queries`.
        k: Candidates a query.
    """

    direction: Direction
    queries: Contents
    query_vectors: Vectors
    items: Contents
    search: ExactSearch
    positives: Excluded
    k: int

    def part(self, start: int, stop: int) -> pa.Table:
        """Rows of the candidates table for the queries from `start` up to `stop`, in corpus order."""
        rows = np.arange(start, min(stop, len(self.queries.ids)))
        vectors = self.query_vectors[rows]
        owners, contents = self.positives.of(self.queries.of_row[rows])
        own_positives = Excluded(_offsets(owners, len(rows)), contents)
        top = self.search.top(vectors, self.k, own_positives)
        similarities = self.search.similarities(vectors, owners, contents)
        positive_columns = self._positive_lists(owners, contents, similarities, len(rows))
        return pa.table(
            [
                self.queries.ids.take(pa.array(rows)),
                pa.array([self.direction] * len(rows), pa.string()),
                *self._candidate_lists(top),
                *positive_columns,
                pa.array(self._positives_ahead(owners, contents, similarities, top), pa.int32()),
                pa.array(self._duplicates(top), pa.int32()),
            ],
            schema=CANDIDATES,
        )

    def _candidate_lists(self, top: TopItems) -> tuple[pa.ListArray, pa.ListArray]:
        present = _present(top)
        offsets = np.concatenate([[0], np.cumsum(top.counts)])
        rows = self.items.first[top.positions[present]]
        return _lists(offsets, self.items.ids.take(pa.array(rows))), _lists(offsets, pa.array(top.similarities[present]))

    def _positive_lists(
        self, owners: Positions, contents: Positions, similarities: Vectors, count: int
    ) -> tuple[pa.ListArray, pa.ListArray]:
        """Every id of every positive content, by id."""
        copies = self.items.copies[contents]
        pair = np.repeat(np.arange(len(owners)), copies)
        within = np.arange(len(pair)) - np.repeat(np.cumsum(copies) - copies, copies)
        rows = self.items.members[self.items.offsets[contents][pair] + within]
        order = np.lexsort((self.items.id_rank[rows], owners[pair]))
        offsets = _offsets(owners[pair], count)
        ids = self.items.ids.take(pa.array(rows[order]))
        return _lists(offsets, ids), _lists(offsets, pa.array(similarities[pair[order]]))

    def _positives_ahead(self, owners: Positions, contents: Positions, similarities: Vectors, top: TopItems) -> Positions:
        """How many positive ids would stand before the end of each query's list if they were no positives."""
        last = np.maximum(top.counts - 1, 0)[:, None]
        last_similarity = np.take_along_axis(top.similarities, last, axis=1)[owners, 0]
        last_position = np.take_along_axis(top.positions, last, axis=1)[owners, 0]
        tied_before = (similarities == last_similarity) & (contents < last_position)
        ahead = (top.counts < self.k)[owners] | (similarities > last_similarity) | tied_before
        copies = self.items.copies[contents[ahead]]
        return np.bincount(owners[ahead], weights=copies, minlength=len(top.counts)).astype(np.int64)

    def _duplicates(self, top: TopItems) -> Positions:
        """How many ids were left out because a candidate of the list has the same content."""
        present = _present(top)
        copies = self.items.copies[top.positions[present]]
        return np.bincount(np.nonzero(present)[0], weights=copies - 1, minlength=len(present)).astype(np.int64)


def group_positives(pairs: Positions, queries: Contents, items: Contents) -> Excluded:
    """Positive contents of each query content, so that positives are closed over equal contents on both sides.

    Args:
        pairs: (row of `queries`, row of `items`), int64 [P, 2].
        queries: The side that asks.
        items: The side that is asked for.
    """
    codes = np.unique(queries.of_row[pairs[:, 0]] * len(items) + items.of_row[pairs[:, 1]])
    return Excluded(_offsets(codes // len(items), len(queries)), codes % len(items))


def _present(top: TopItems) -> npt.NDArray[np.bool_]:
    return np.arange(top.positions.shape[1]) < top.counts[:, None]


def _offsets(owners: Positions, count: int) -> Positions:
    """Offsets of the ranges of equal owners; `owners` ascends."""
    return np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=count))]).astype(np.int64)


def _lists(offsets: Positions, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
