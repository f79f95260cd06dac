"""The lists of all queries as flat arrays: every candidate and positive with its value and place in the three orders.

Shape suffixes: Q queries, E = Q + 1 ends, T items of all lists together, W the three who order (miner, teacher, student).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Int64

MINER, TEACHER, STUDENT = range(3)

_CANDIDATES = ("similarities", "teacher_scores", "candidate_similarities")
_POSITIVES = ("positive_similarities", "positive_scores", "positive_similarities")


@dataclass(frozen=True)
class Lists:
    """Query by query: first the candidates in the teacher's order, then the positives.

    Args:
        offsets: Where each query's items begin, and the end.
        query: The query of each item.
        is_positive: Whether each item is an annotated positive.
        values: Similarity by the miner, score by the teacher, similarity by the student.
        places: Place in each of the three orders, from 1. Among equals positives come last, so ties count against the model.
    """

    offsets: Int64[np.ndarray, " E"]
    query: Int64[np.ndarray, " T"]
    is_positive: Bool[np.ndarray, " T"]
    values: Float32[np.ndarray, "W T"]
    places: Int64[np.ndarray, "W T"]

    @property
    def lengths(self) -> Int64[np.ndarray, " Q"]:
        """Items of each list, positives included."""
        return np.asarray(np.diff(self.offsets))

    def items(self, query: int) -> slice:
        """Where a query's items lie."""
        return slice(int(self.offsets[query]), int(self.offsets[query + 1]))

    def best(self, who: int, *, positive: bool) -> Float32[np.ndarray, " Q"]:
        """Highest value of each query's positives, or of its candidates; minus infinity where it has none."""
        best = np.full(len(self.offsets) - 1, -np.inf, dtype=np.float32)
        chosen = self.is_positive == positive
        np.maximum.at(best, self.query[chosen], self.values[who, chosen])
        return best


def lists_of(rankings: pa.Table, student_lists: pa.Table) -> Lists:
    """Put rankings and the student's similarities together.

    Args:
        rankings: As `RANKINGS`.
        student_lists: As `EVALUATED_LISTS`, of the same queries in the same order.
    """
    candidates, positives = (_lengths(rankings, column) for column in ("candidate_ids", "positive_ids"))
    lengths = candidates + positives
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    query = np.repeat(np.arange(len(lengths)), lengths)
    is_positive = np.arange(len(query)) - offsets[query] >= candidates[query]
    values = np.empty((3, len(query)), dtype=np.float32)
    for who, table in enumerate((rankings, rankings, student_lists)):
        values[who, ~is_positive] = _flat(table, _CANDIDATES[who])
        values[who, is_positive] = _flat(table, _POSITIVES[who])
    places = np.stack([_places(row, query, offsets) for row in values])
    return Lists(offsets, query, is_positive, values, places)


def _places(
    values: Float32[np.ndarray, " T"], query: Int64[np.ndarray, " T"], offsets: Int64[np.ndarray, " E"]
) -> Int64[np.ndarray, " T"]:
    # The sort is stable, and a list's positives lie behind its candidates.
    order = np.lexsort((-values, query))
    places = np.empty(len(values), dtype=np.int64)
    places[order] = np.arange(len(values)) - offsets[query[order]] + 1
    return places


def _lengths(table: pa.Table, column: str) -> Int64[np.ndarray, " Q"]:
    lengths = pc.list_value_length(table[column].combine_chunks()).to_numpy()
    return np.asarray(lengths, dtype=np.int64)


def _flat(table: pa.Table, column: str) -> Float32[np.ndarray, " N"]:
    return np.asarray(table[column].combine_chunks().flatten().to_numpy())
