"""What a rankings folder holds, in figures: read back from its parts, so that a resumed run counts all of them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.metrics.agreement import kendall_tau
from cprd_pipeline.scoring.candidates import Floats
from cprd_pipeline.scoring.pairs import DIRECTIONS
from cprd_pipeline.scoring.rankings import extremes_of, is_false_negative
from cprd_pipeline.store.folder import InputFolder

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_BINS = 60
_NOTHING = np.empty(0, dtype=np.float32)


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
    directions: dict[str, Any] = {}
    scores: dict[str, list[Floats]] = {"positives": [], "candidates": []}
    for direction in DIRECTIONS:
        names = folder.part_names(f"{direction}-")
        if not names:
            continue
        tables = [folder.table(name) for name in names]
        mined = sum(int(pc.sum(pc.list_value_length(candidates.table(name)["candidate_ids"])).as_py() or 0) for name in names)
        found = _Lists(pa.concat_tables(tables).combine_chunks())
        directions[direction] = found.results(mined, margin)
        scores["positives"].append(found.positive_scores)
        scores["candidates"].append(found.scores)
    return {
        "directions": directions,
        "histogram": histogram({name: np.concatenate([_NOTHING, *parts]) for name, parts in scores.items()}),
    }


class _Lists:
    """The rankings of one direction as arrays."""

    def __init__(self, table: pa.Table) -> None:
        self.lengths, self.scores = _flat(table, "teacher_scores")
        self.positive_lengths, self.positive_scores = _flat(table, "positive_scores")
        self.similarities = _flat(table, "similarities")[1]
        self.n_valid = table["n_valid"].to_numpy()

    def results(self, mined: int, margin: float) -> dict[str, Any]:
        queries = len(self.lengths)
        query = np.repeat(np.arange(queries), self.lengths)
        extremes = extremes_of(self.positive_scores, self.positive_lengths)
        asked = int((self.positive_lengths > 0).sum())
        beaten = np.zeros(queries, dtype=np.bool_)
        beaten[query[is_false_negative(self.scores, query, extremes, 0.0)]] = True
        dropped = mined - len(self.scores)
        flagged = int(is_false_negative(self.scores, query, extremes, margin).sum()) + dropped
        return {
            "queries": queries,
            "candidates": len(self.scores),
            "queries_without_positive": queries - asked,
            "first_is_no_positive": round(float(beaten.sum()) / asked, 6) if asked else None,
            "false_negatives": flagged,
            "false_negative_share": round(flagged / mined, 6) if mined else None,
            "dropped": dropped,
            "valid": int(self.n_valid.sum()),
            "queries_without_valid": int((self.n_valid == 0).sum()),
            "kendall_tau": kendall_tau(self.lengths, self.similarities, self.scores),
            "score_quantiles": {"positives": quantiles(self.positive_scores), "candidates": quantiles(self.scores)},
        }


def quantiles(values: Floats) -> dict[str, float] | None:
    """Some quantiles; null without values."""
    if not len(values):
        return None
    found = np.quantile(values.astype(np.float64), _QUANTILES)
    return {str(share): round(float(value), 5) for share, value in zip(_QUANTILES, found, strict=True)}


def histogram(groups: dict[str, Floats]) -> dict[str, list[float]] | None:
    """Counts of each group's values in bins over the range of all; `edges` has one entry more. Null without values."""
    filled = np.concatenate(list(groups.values()))
    if not len(filled):
        return None
    edges = np.histogram_bin_edges(filled.astype(np.float64), _BINS)
    counts = {name: np.histogram(values, edges)[0].tolist() for name, values in groups.items()}
    return {"edges": edges.tolist(), **counts}


def _flat(table: pa.Table, column: str) -> tuple[Rows, Floats]:
    lists = table[column].combine_chunks()
    return pc.list_value_length(lists).to_numpy().astype(np.int64), lists.flatten().to_numpy()
