"""How far a student's order of the mined lists is the teacher's: what distillation is about, apart from the annotations."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cprd_pipeline.evaluation.rankings import DirectionRankings
from cprd_pipeline.evaluation.reality import Protocol, interval_of_mean
from cprd_pipeline.metrics.agreement import kendall_tau_by_band, kendall_taus
from cprd_pipeline.metrics.graded import gain, ndcg_of_lists

BANDS = (5, 10, 20, 50, 100, 200, 500)
"""Last rank of each band of the teacher's order."""


def agreement(lists: pa.Table, rankings: DirectionRankings, protocol: Protocol) -> dict[str, Any]:
    """Kendall's tau and nDCG@10 of the student's order of the candidates against the teacher's.

    nDCG's gains come from the teacher's scores, read as probabilities of a match. `bands` has tau among the candidates
    whose rank by the teacher lies between `from` and `to`: the first bands are the hard negatives.

    Args:
        lists: The student's similarities of the rankings' items, of the same direction.
        rankings: What the teacher said.
        protocol: How the intervals are made; lists are drawn anew.
    """
    lengths, scores = rankings.candidates.lengths, rankings.candidates.teacher_scores
    own = lists["candidate_similarities"].combine_chunks().flatten().to_numpy()
    list_rows = np.repeat(np.arange(len(lengths)), lengths)
    gains = gain((1 / (1 + np.exp(-scores.astype(np.float64)))).astype(np.float32))
    some = lengths > 0
    ndcg = ndcg_of_lists(list_rows, own, gains, _ideal(list_rows, gains, len(lengths)))
    edges = tuple(edge for before, edge in zip((0, *BANDS), BANDS, strict=False) if before < int(lengths.max(initial=0)))
    taus = kendall_tau_by_band(lengths, scores, own, edges)
    per_list = kendall_taus(lengths, scores, own)
    return {
        "kendall_tau": round(float(per_list.mean()), 6) if len(per_list) else None,
        "kendall_tau_interval": interval_of_mean(per_list, protocol),
        "ndcg10_interval": interval_of_mean(100.0 * ndcg[some], protocol),
        "ndcg10": round(100.0 * float(ndcg[some].mean()), 4) if some.any() else None,
        "bands": [
            {"from": before + 1, "to": edge, "kendall_tau": tau}
            for before, edge, tau in zip((0, *edges), edges, taus, strict=False)
        ],
    }


def agreement_rows(found: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """For the terminal: a line a student."""
    rows = [("order of the teacher", f"{'tau i2t':>9}{'t2i':>7}{'nDCG i2t':>11}{'t2i':>7}")]
    for model, directions in found.items():
        taus, ndcgs = ([directions[d][name] for d in ("i2t", "t2i")] for name in ("kendall_tau", "ndcg10"))
        cells = [*(_cell(tau, ".2f") for tau in taus), *(_cell(ndcg, ".1f") for ndcg in ndcgs)]
        rows.append((model, f"{cells[0]:>9}{cells[1]:>7}{cells[2]:>11}{cells[3]:>7}"))
        halves = [
            _half(directions[side][f"{name}_interval"], form)
            for name, form in (("kendall_tau", ".2f"), ("ndcg10", ".1f"))
            for side in ("i2t", "t2i")
        ]
        rows.append(("", f"{halves[0]:>9}{halves[1]:>7}{halves[2]:>11}{halves[3]:>7}"))
    return rows


def _half(bounds: list[float] | None, form: str) -> str:
    return "" if bounds is None else f"±{(bounds[1] - bounds[0]) / 2:{form}}"


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _ideal(list_rows: npt.NDArray[np.int64], gains: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Best DCG@10 of each list: its own gains in their best order."""
    best = ndcg_of_lists(list_rows, gains.astype(np.float32), gains, np.ones(count))
    return np.asarray(best)
