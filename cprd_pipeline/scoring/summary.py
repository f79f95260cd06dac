"""What a rankings folder holds, in figures: read back from its parts, so that a resumed run counts all of them.

The parts are read twice, each time without ids, and one at a time: exact quantiles ask for it, and a sample that is spread evenly
over lists whose number is not known before the end.
"""

from collections import Counter
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.metrics.agreement import kendall_tau
from cprd_pipeline.scoring.candidates import Floats
from cprd_pipeline.scoring.pairs import DIRECTIONS
from cprd_pipeline.scoring.quantiles import Quantiles
from cprd_pipeline.scoring.rankings import extremes_of, is_false_negative
from cprd_pipeline.store.folder import InputFolder

_SIDES = ("positives", "candidates")
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_BINS = 60
# As many as `kendall_tau` looks at.
_COMPARED_LISTS = 2000

_Edges = npt.NDArray[np.float64]


def summarise(folder: InputFolder, candidates: InputFolder, margin: float) -> dict[str, Any]:
    """Figures of each direction, and the histogram of all scores.

    `first_is_no_positive` is the share of the queries with a positive whose best candidate scores above their best positive;
    `false_negatives` counts candidates above it by more than the margin, dropped ones included; `kendall_tau` compares the
    miner's order of each list with the teacher's, 1 for the same, -1 for the reverse, a tie counting 0 (mean over a sample).

    Args:
        folder: Finished rankings.
        candidates: What they were made from.
        margin: As `false_negative_margin`.
    """
    names = {direction: folder.part_names(f"{direction}-") for direction in DIRECTIONS}
    tallies = {direction: _Tally(margin) for direction in DIRECTIONS if names[direction]}
    for direction, tally in tallies.items():
        for name in names[direction]:
            tally.add(_Lists(folder, name), _mined(candidates, name))
    edges = _edges([scores for tally in tallies.values() for scores in tally.scores.values()])
    for direction, tally in tallies.items():
        for name in names[direction]:
            tally.add_again(_Lists(folder, name), edges)
    return {
        "directions": {direction: tally.results() for direction, tally in tallies.items()},
        "histogram": _histogram([tally.scores for tally in tallies.values()], edges),
    }


class _Lists:
    """The rankings of one part as arrays."""

    def __init__(self, folder: InputFolder, name: str) -> None:
        columns = ["teacher_scores", "positive_scores", "similarities", "n_valid"]
        table = pq.read_table(folder.part_path(name), columns=columns)
        self.lengths, self.scores = _flat(table, "teacher_scores")
        self.positive_lengths, self.positive_scores = _flat(table, "positive_scores")
        self.similarities = _flat(table, "similarities")[1]
        self.n_valid = table["n_valid"].to_numpy()

    @property
    def query(self) -> Rows:
        """Which query each candidate belongs to, int64 [T]."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


class _Scores:
    """The scores of the positives, or of the candidates, of one direction: `count` sees all of them, then `locate` does."""

    def __init__(self) -> None:
        self._quantiles = Quantiles(_QUANTILES)
        self.lowest, self.highest = np.inf, -np.inf
        self.bins = np.zeros(_BINS, dtype=np.int64)

    def count(self, values: Floats) -> None:
        self._quantiles.count(values)
        self.lowest = min(self.lowest, float(values.min(initial=np.inf)))
        self.highest = max(self.highest, float(values.max(initial=-np.inf)))

    def locate(self, values: Floats, edges: _Edges) -> None:
        self._quantiles.locate(values)
        self.bins += np.histogram(values, edges)[0]

    def quantiles(self) -> dict[str, float] | None:
        """Some quantiles; null without values."""
        found = self._quantiles.results()
        return None if found is None else {str(share): round(value, 5) for share, value in zip(_QUANTILES, found, strict=True)}


class _Sample:
    """Lists of two or more candidates, spread evenly over all of a direction: `count` sees all of them, then `take` does."""

    def __init__(self) -> None:
        self._lists = 0
        self._seen = 0
        self._taken: list[tuple[Rows, Floats, Floats]] = []

    def count(self, lists: _Lists) -> None:
        self._lists += int((lists.lengths > 1).sum())

    def take(self, lists: _Lists) -> None:
        comparable = np.flatnonzero(lists.lengths > 1)
        first, last = np.searchsorted(self._chosen, [self._seen, self._seen + len(comparable)])
        rows = comparable[self._chosen[first:last] - self._seen]
        self._seen += len(comparable)
        inside = np.isin(lists.query, rows)
        self._taken.append((lists.lengths[rows], lists.similarities[inside], lists.scores[inside]))

    def kendall_tau(self) -> float | None:
        return kendall_tau(*map(np.concatenate, zip(*self._taken, strict=True)))

    @cached_property
    def _chosen(self) -> Rows:
        count = min(self._lists, _COMPARED_LISTS)
        return np.unique(np.linspace(0, max(self._lists - 1, 0), count).astype(np.int64))


class _Tally:
    """Figures of one direction: `add` sees all parts, then `add_again` does."""

    def __init__(self, margin: float) -> None:
        self._margin = margin
        self._counts: Counter[str] = Counter()
        self._sample = _Sample()
        self.scores = {side: _Scores() for side in _SIDES}

    def add(self, lists: _Lists, mined: int) -> None:
        query, queries = lists.query, len(lists.lengths)
        extremes = extremes_of(lists.positive_scores, lists.positive_lengths)
        beaten = np.zeros(queries, dtype=np.bool_)
        beaten[query[is_false_negative(lists.scores, query, extremes, 0.0)]] = True
        self._counts.update(
            queries=queries,
            asked=int((lists.positive_lengths > 0).sum()),
            candidates=len(lists.scores),
            mined=mined,
            beaten=int(beaten.sum()),
            flagged=int(is_false_negative(lists.scores, query, extremes, self._margin).sum()),
            valid=int(lists.n_valid.sum()),
            without_valid=int((lists.n_valid == 0).sum()),
        )
        self._sample.count(lists)
        self.scores["positives"].count(lists.positive_scores)
        self.scores["candidates"].count(lists.scores)

    def add_again(self, lists: _Lists, edges: _Edges) -> None:
        self._sample.take(lists)
        self.scores["positives"].locate(lists.positive_scores, edges)
        self.scores["candidates"].locate(lists.scores, edges)

    def results(self) -> dict[str, Any]:
        counts = self._counts
        queries, asked, mined = counts["queries"], counts["asked"], counts["mined"]
        dropped = mined - counts["candidates"]
        flagged = counts["flagged"] + dropped
        return {
            "queries": queries,
            "candidates": counts["candidates"],
            "queries_without_positive": queries - asked,
            "first_is_no_positive": round(counts["beaten"] / asked, 6) if asked else None,
            "false_negatives": flagged,
            "false_negative_share": round(flagged / mined, 6) if mined else None,
            "dropped": dropped,
            "valid": counts["valid"],
            "queries_without_valid": counts["without_valid"],
            "kendall_tau": self._sample.kendall_tau(),
            "score_quantiles": {side: scores.quantiles() for side, scores in self.scores.items()},
        }


def _edges(scores: list[_Scores]) -> _Edges:
    """Of the histogram's bins, over the range of all scores."""
    ends = np.array([end for some in scores for end in (some.lowest, some.highest)])
    return np.histogram_bin_edges(ends[np.isfinite(ends)], _BINS)


def _histogram(directions: list[dict[str, _Scores]], edges: _Edges) -> dict[str, list[float]] | None:
    """Counts of each side's scores in the bins; `edges` has one entry more. Null without scores."""
    counts = {side: np.sum([scores[side].bins for scores in directions], axis=0, dtype=np.int64) for side in _SIDES}
    if not any(side.any() for side in counts.values()):
        return None
    return {"edges": edges.tolist(), **{side: bins.tolist() for side, bins in counts.items()}}


def _mined(candidates: InputFolder, name: str) -> int:
    """Candidates of a part before any was dropped."""
    table = pq.read_table(candidates.part_path(name), columns=["similarities"])
    return int(pc.sum(pc.list_value_length(table["similarities"])).as_py() or 0)


def _flat(table: pa.Table, column: str) -> tuple[Rows, Floats]:
    lists = table[column].combine_chunks()
    return pc.list_value_length(lists).to_numpy().astype(np.int64), lists.flatten().to_numpy()
