"""What one model did with each query of a split, read from the kept results: the ground of all figures and tests."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.evaluation.questions import DIRECTIONS, Direction
from cprd_pipeline.metrics.retrieval import RECALL_AT, measure_ranks
from cprd_pipeline.metrics.significance import GroupedQueries

Values = npt.NDArray[np.float64]

RECALLS = tuple(f"{direction}_r{k}" for direction in DIRECTIONS for k in RECALL_AT)
"""The figures that RSUM adds up."""


@dataclass(frozen=True)
class DirectionOutcome:
    """One direction.

    Args:
        direction: Who asks.
        query_ids: Of the Q queries that have a positive.
        groups: Image of the split that each is about, int64 [Q].
        values: Per-query values whose mean is a figure, by the figure's name: recalls, MAP@R, R-precision and nDCG in
            percent, mean rank, MRR; float64 [Q].
        ranks: Of the best positive, int64 [Q].
    """

    direction: Direction
    query_ids: list[str]
    groups: npt.NDArray[np.int64]
    values: dict[str, Values]
    ranks: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """Both directions of one model, i2t first."""

    name: str
    directions: tuple[DirectionOutcome, DirectionOutcome]

    @property
    def figures(self) -> list[str]:
        """Names of the figures that are means over queries, both directions."""
        return [f"{one.direction}_{name}" for one in self.directions for name in one.values]

    @property
    def group_count(self) -> int:
        """Images that queries are about, counted to the last one."""
        return max(int(one.groups.max(initial=-1)) for one in self.directions) + 1

    def grouped(self, group_count: int) -> list[GroupedQueries]:
        """Values summed over the queries of each image, the columns in the order of `figures`."""
        return [GroupedQueries.of(np.stack(list(one.values.values()), axis=1), one.groups, group_count) for one in self.directions]


def outcome_of(results: pa.Table) -> Outcome:
    """From the kept per-query results of one model."""
    i2t, t2i = (_direction(results.filter(pc.equal(results["direction"], direction)), direction) for direction in DIRECTIONS)
    return Outcome(results["model"][0].as_py(), (i2t, t2i))


def _direction(rows: pa.Table, direction: Direction) -> DirectionOutcome:
    lists = rows["positive_ranks"].combine_chunks()
    counts = pc.list_value_length(lists).to_numpy().astype(np.int64)
    values = measure_ranks(lists.flatten().to_numpy().astype(np.int64), counts).values()
    if rows["ndcg"].null_count == 0:
        values["ndcg10"] = 100.0 * rows["ndcg"].to_numpy()
    groups, ranks = (rows[name].to_numpy().astype(np.int64) for name in ("group", "rank"))
    return DirectionOutcome(direction, rows["query_id"].to_pylist(), groups, values, ranks)
