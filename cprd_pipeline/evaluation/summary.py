"""From per-query results to the figures that are reported."""

from collections.abc import Sequence

import numpy as np

from cprd_pipeline.evaluation.outcomes import RECALLS, Outcome
from cprd_pipeline.evaluation.questions import DIRECTIONS

_DECIMALS = 4
_MORE = ("map_r", "r_precision", "binary_ndcg10", "mrr", "median_rank")

Metrics = dict[str, dict[str, float]]
Intervals = dict[str, dict[str, list[float]]]


def summarise(outcome: Outcome) -> dict[str, float]:
    """All figures of one model.

    Returns:
        `rsum`, at most 600. For i2t and t2i: `i2t_r1`, `i2t_r5`, `i2t_r10` in percent, `i2t_median_rank`, `i2t_mean_rank`,
        `i2t_mrr`; `i2t_map_r`, `i2t_r_precision` and `i2t_binary_ndcg10` in percent, over all positives; `i2t_ndcg10` in
        percent where the true relevance is known. Rounded to 4 decimals.
    """
    figures: dict[str, float] = {}
    for one in outcome.directions:
        means = {name: float(np.mean(values)) for name, values in one.values.items()}
        means["median_rank"] = float(np.median(one.ranks))
        figures |= {f"{one.direction}_{name}": round(value, _DECIMALS) for name, value in means.items()}
    return {"rsum": round(sum(figures[name] for name in RECALLS), _DECIMALS)} | figures


def results_rows(metrics: Metrics, labels: dict[str, str], intervals: Intervals, winners: dict[str, str]) -> list[tuple[str, str]]:
    """The terminal's tables: a heading, then a line a model with the half widths of its intervals below; fits 80 columns.

    Args:
        metrics: Figures of each model, in the order shown.
        labels: What to call a model where its name says too little.
        intervals: Low and high end of figures, by model.
        winners: Figure to the model that is to stand out in it.
    """
    recalls = [*RECALLS, "rsum"]
    heading = "".join(f"{title:>7}" for title in ("i2t@1", "@5", "@10", "t2i@1", "@5", "@10", "RSUM"))
    rows = [("recall in %", heading)]
    for name, figures in metrics.items():
        rows.append((labels.get(name, name), _cells(figures, recalls, {f for f, winner in winners.items() if winner == name})))
        rows.append(("", _half_widths(intervals[name], recalls)))
    for direction in DIRECTIONS:
        rows += _more_rows(metrics, labels, intervals, direction)
    return rows


def _more_rows(metrics: Metrics, labels: dict[str, str], intervals: Intervals, direction: str) -> list[tuple[str, str]]:
    graded = all(f"{direction}_ndcg10" in figures for figures in metrics.values())
    titles = ["MAP@R", "R-prec", "nDCG", "MRR", "median", *(["graded"] if graded else [])]
    names = [f"{direction}_{name}" for name in (*_MORE, *(["ndcg10"] if graded else []))]
    rows = [(direction, "".join(f"{title:>7}" for title in titles))]
    for name, figures in metrics.items():
        rows += [(labels.get(name, name), _cells(figures, names, set())), ("", _half_widths(intervals[name], names))]
    return rows


def _cells(figures: dict[str, float], names: Sequence[str], outstanding: set[str]) -> str:
    return "".join(_cell(figures[name], "mrr" in name, name in outstanding) for name in names)


def _cell(value: float, fine: bool, outstanding: bool) -> str:
    text = f"{value:.3f}" if fine else f"{value:.1f}"
    padding = " " * (7 - len(text))
    return f"{padding}**{text}**" if outstanding else f"{padding}{text}"


def _half_widths(intervals: dict[str, list[float]], names: Sequence[str]) -> str:
    return "".join(f"{_half_width(intervals.get(name), '.3f' if 'mrr' in name else '.1f'):>7}" for name in names)


def _half_width(bounds: list[float] | None, form: str) -> str:
    """Nothing for a figure without an interval, as the median, which is no mean over queries."""
    return "" if bounds is None else f"±{(bounds[1] - bounds[0]) / 2:{form}}"
