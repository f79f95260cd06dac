"""What distillation did to each query, and what the teacher thinks of its candidates; over all queries of the split.

Shape suffix: Q queries, in the order of the rankings.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64

from cprd_pipeline.reporting.directions import DIRECTIONS
from cprd_pipeline.reporting.inputs import Inputs
from cprd_pipeline.reporting.lists import STUDENT, TEACHER, Lists

# Share of a direction's queries that count as those where teacher and student disagree most.
DISAGREEING_SHARE = 0.1


@dataclass(frozen=True)
class Verdicts:
    """One entry a query.

    Args:
        direction: Position in `DIRECTIONS`.
        miner_rank: Rank of the best positive among all items of the split, from 1; 0 for a query without a positive.
        student_rank: The same by the student.
        agreement: Spearman's correlation of the teacher's and the student's order of the list; NaN for fewer than two items.
        excess: By how much the best candidate's teacher score exceeds the best positive's; NaN without either.
        disagree: Among the tenth of its direction with the lowest agreement.
    """

    direction: Int64[np.ndarray, " Q"]
    miner_rank: Int64[np.ndarray, " Q"]
    student_rank: Int64[np.ndarray, " Q"]
    agreement: Float64[np.ndarray, " Q"]
    excess: Float64[np.ndarray, " Q"]
    disagree: Bool[np.ndarray, " Q"]

    @property
    def fixed(self) -> Bool[np.ndarray, " Q"]:
        """The miner ranks no positive first, the student does."""
        return np.asarray((self.miner_rank > 1) & (self.student_rank == 1))

    @property
    def broken(self) -> Bool[np.ndarray, " Q"]:
        """The reverse."""
        return np.asarray((self.miner_rank == 1) & (self.student_rank > 1))

    @property
    def false_negative(self) -> Bool[np.ndarray, " Q"]:
        """A candidate scores above every positive."""
        return self.excess > 0


def verdicts_of(inputs: Inputs, lists: Lists) -> Verdicts:
    """Judge every query of the rankings.

    Args:
        inputs: Of the run.
        lists: `lists_of` its rankings.
    """
    direction = np.array([DIRECTIONS.index(name) for name in inputs.rankings["direction"].to_pylist()], dtype=np.int64)
    agreement = _agreement(lists)
    candidate, positive = (lists.best(TEACHER, positive=positive).astype(np.float64) for positive in (False, True))
    known = np.isfinite(candidate) & np.isfinite(positive)
    return Verdicts(
        direction,
        _ranks(inputs.rankings, inputs.queries[inputs.miner]),
        _ranks(inputs.rankings, inputs.queries[inputs.student]),
        agreement,
        np.subtract(candidate, positive, out=np.full(len(known), np.nan), where=known),
        _lowest(agreement, direction),
    )


def _ranks(rankings: pa.Table, results: pa.Table) -> Int64[np.ndarray, " Q"]:
    """Ranks of one model, in the order of the rankings; only queries with a positive were asked."""
    keys = ("direction", "query_id")
    known = dict(zip(zip(*(results[key].to_pylist() for key in keys), strict=True), results["rank"].to_pylist(), strict=True))
    asked = zip(*(rankings[key].to_pylist() for key in keys), strict=True)
    return np.array([known.get(query, 0) for query in asked], dtype=np.int64)


def _agreement(lists: Lists) -> Float64[np.ndarray, " Q"]:
    """1 - 6 sum(d^2) / (n (n^2 - 1)), d being the difference of an item's two places."""
    moved = (lists.places[TEACHER] - lists.places[STUDENT]).astype(np.float64)
    squares = np.bincount(lists.query, weights=moved**2, minlength=len(lists.lengths))
    lengths = lists.lengths.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(lengths > 1, 1 - 6 * squares / (lengths * (lengths**2 - 1)), np.nan)


def _lowest(agreement: Float64[np.ndarray, " Q"], direction: Int64[np.ndarray, " Q"]) -> Bool[np.ndarray, " Q"]:
    lowest = np.zeros(len(agreement), dtype=np.bool_)
    for number in range(len(DIRECTIONS)):
        rows = np.flatnonzero((direction == number) & np.isfinite(agreement))
        by_agreement = rows[np.argsort(agreement[rows], kind="stable")]
        lowest[by_agreement[: int(np.ceil(DISAGREEING_SHARE * len(rows)))]] = True
    return lowest
