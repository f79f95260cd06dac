"""The study as Markdown tables, ready for a README."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from cprd_pipeline.evaluation.study.comparison import Comparison
from cprd_pipeline.evaluation.study.order import REACH
from cprd_pipeline.evaluation.study.settings import StudySettings
from cprd_pipeline.evaluation.study.text import MISSING, number, spread, with_interval


def markdown(settings: StudySettings, results: dict[str, Any], comparisons: Sequence[Comparison]) -> str:
    """Arms, agreement by rank band, findings.

    Args:
        settings: Arms and their labels.
        results: Of the study's report.
        comparisons: Of the arms.
    """
    parts = [_arms(settings, results, comparisons), _reading(results), _bands(settings, results), _findings(results)]
    return "\n\n".join(parts) + "\n"


def _arms(settings: StudySettings, results: dict[str, Any], comparisons: Sequence[Comparison]) -> str:
    reference = settings.arms[settings.reference].label
    chosen = [f"mean on {settings.chosen_on}"] if settings.chosen_on else []
    titles = ["arm", *(f"seed {seed}" for seed in settings.seeds), "mean ± sd", f"from {reference} [95 %]", *chosen]
    rows = []
    for one in results["arms"]:
        against = next((c for c in comparisons if (c.more, c.less, c.by) == (one["name"], settings.reference, "rsum")), None)
        cells = [*(f"{value:.1f}" for value in one["rsum"]), spread(one["rsum"], 1), _difference(against)]
        cells += [f"{mean(one['chosen_rsum']):.1f}"] if settings.chosen_on else []
        rows.append([one["label"], *cells, _ndcg(one)])
    if teacher := results["teacher"]:
        empty = [""] * (len(settings.seeds) - 1 + 2 + len(chosen))
        rows.append([teacher["label"], f"{teacher['rsum']:.1f}", *empty, _ndcg(teacher)])
    return _table([*titles, f"{results['ndcg']} i2t / t2i"], rows)


def _difference(one: Comparison | None) -> str:
    if one is None:
        return MISSING
    text = with_interval(one, 1)
    return f"**{text}**" if one.clear else text


def _ndcg(figures: dict[str, Any]) -> str:
    return " / ".join(f"{value:.1f}" for value in figures["ndcg"])


def _reading(results: dict[str, Any]) -> str:
    return (
        f"RSUM of the {results['split']} split, at most 600. Differences are paired by seed, intervals are Student's over the "
        f"seeds; bold: p at most 0.05 after Holm's correction for all {len(results['comparisons'])} comparisons."
    )


def _bands(settings: StudySettings, results: dict[str, Any]) -> str:
    bands = results["bands"]
    titles = ["order of the teacher, by its ranks", *(band.replace("-", "\N{EN DASH}") for band in bands["bands"])]
    rows = []
    for arm, found in bands["arms"].items():
        rows.append([settings.arms[arm].label, *(spread(found[band], 2) for band in bands["bands"])])
    if bands["truth"]:
        rows.append(["true relevance", *(number(bands["truth"]["bands"][band], 2) for band in bands["bands"])])
    explanation = f"1: the same order, 0: unrelated, over pairs of a list's candidates at most {REACH} ranks of the teacher apart."
    return f"{_table(titles, rows)}\n\n{explanation}"


def _findings(results: dict[str, Any]) -> str:
    return "\n".join(f"- {one['text']}: **{one['verdict']}**. {one['numbers']}." for one in results["findings"])


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
