"""The page's parts above the gallery: headline, results, pipeline, distributions, learning curves."""

import itertools
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from cprd_pipeline.reporting.inputs import Inputs, TrainingLog
from cprd_pipeline.reporting.markup import Html, element, join
from cprd_pipeline.reporting.plots import histogram, learning_curves
from cprd_pipeline.store.report import StageReport

TEACHER = "teacher"

_RECALLS = [("i2t_r1", "R@1"), ("i2t_r5", "R@5"), ("i2t_r10", "R@10"), ("t2i_r1", "R@1"), ("t2i_r5", "R@5"), ("t2i_r10", "R@10")]
_NDCG = [("i2t_ndcg10", "i→t"), ("t2i_ndcg10", "t→i")]
_GROUP_COLOURS = {"positives": "positive", "candidates": "candidate"}
_TERM_COLOURS = ("student", "candidate", "positive", "fourth", "fifth")


def section(title: str, explanation: str, *content: str) -> Html:
    """A titled part of the page with a sentence on what is seen."""
    return element("section", element("h2", title), element("p", explanation, class_="muted"), *content)


def headline(inputs: Inputs) -> Html:
    """The outcome in three figures."""
    base, student, teacher = (inputs.metrics[name]["rsum"] for name in (inputs.miner, inputs.student, TEACHER))
    tiles = [
        (f"{student:.1f}", f"RSUM of {inputs.student}"),
        (f"{student - base:+.1f}".replace("-", "\N{MINUS SIGN}"), f"against {inputs.miner} ({base:.1f})"),
    ]
    if teacher > base:
        tiles.append((f"{(student - base) / (teacher - base):.0%}", f"of the way to the teacher ({teacher:.1f})"))
    return element(
        "div", *(element("p", element("strong", figure), element("span", text)) for figure, text in tiles), class_="tiles"
    )


def results(inputs: Inputs) -> Html:
    """One row a model: recalls, their sum, nDCG where the true relevance is known."""
    graded = all("i2t_ndcg10" in figures for figures in inputs.metrics.values())
    groups = [("", 1), ("image → text, %", 3), ("text → image, %", 3)] + [("nDCG@10, %", 2)] * graded
    columns = [("rsum", "RSUM"), *_RECALLS] + _NDCG * graded
    head = join(
        element("tr", element("th", ""), *(element("th", title, colspan=str(span)) for title, span in groups)),
        element("tr", element("th", "model", scope="col"), *(element("th", title, scope="col") for _, title in columns)),
    )
    order = sorted(inputs.metrics, key=lambda name: inputs.metrics[name]["rsum"])
    body = [_result_row(inputs, name, [key for key, _ in columns]) for name in order]
    table = element("table", element("thead", head), element("tbody", *body))
    return section(
        "Results",
        f"Split {inputs.split}. R@K: share of queries with a right answer among the first K of all items; RSUM: their sum, at "
        f"most 600. Teacher: the cross-encoder reordering the first {inputs.rerank_depth} of {inputs.miner}, what distillation "
        "could reach.",
        element("div", table, class_="scroll"),
    )


def _result_row(inputs: Inputs, name: str, keys: list[str]) -> Html:
    figures = inputs.metrics[name]
    label = f"teacher, top {inputs.rerank_depth} of {inputs.miner}" if name == TEACHER else name
    cells = [element("td", f"{figures[key]:.1f}", class_="total" if key == "rsum" else "") for key in keys]
    return element("tr", element("th", label, scope="row"), *cells, class_="chosen" if name == inputs.student else "")


def pipeline(stages: list[tuple[str, StageReport]]) -> Html:
    """The stages in their order with counts and times."""
    total = sum(sum(report.seconds.values()) for _, report in stages)
    cards = [_stage_card(name, report) for name, report in stages]
    return section("Pipeline", f"{len(stages)} stages, {duration(total)} in all.", element("ol", *cards, class_="pipeline"))


def _stage_card(name: str, report: StageReport) -> Html:
    # The figures of evaluate are the table above; here they would only be in the way.
    rows = [] if report.stage == "evaluate" else report.table
    counts = element("dl", *(element("div", element("dt", what), element("dd", value)) for what, value in rows))
    parts = ", ".join(f"{part} {duration(seconds)}" for part, seconds in report.seconds.items())
    machine: dict[str, Any] = report.machine.get("libraries", {})
    facts = json.dumps({"settings": report.settings, "libraries": machine}, indent=2, ensure_ascii=False)
    details = element("details", element("summary", "settings and versions"), element("pre", facts))
    heading = element("h3", name.replace("_", " "), element("span", duration(sum(report.seconds.values()))))
    return element("li", heading, element("p", parts, class_="muted"), counts, details)


def duration(seconds: float) -> str:
    """A time as people say it: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def distributions(inputs: Inputs) -> Html:
    """How teacher scores and similarities spread, for positives and for mined candidates."""
    rankings, lists = inputs.rankings, inputs.student_lists
    plots = [
        _distribution("teacher score (logit)", rankings, "positive_scores", "teacher_scores"),
        _distribution(f"similarity by {inputs.miner}", rankings, "positive_similarities", "similarities"),
    ]
    if inputs.student != inputs.miner:
        plots.append(_distribution(f"similarity by {inputs.student}", lists, "positive_similarities", "candidate_similarities"))
    return section(
        "Distributions",
        "Shares of the annotated positives and of the mined candidates. Candidates far to the right are likely false negatives.",
        element("div", *plots, class_="plots"),
    )


def _distribution(title: str, table: Any, positives: str, candidates: str) -> Html:
    groups = {"positives": _values(table, positives), "candidates": _values(table, candidates)}
    return histogram(title, groups, _GROUP_COLOURS)


def _values(table: Any, column: str) -> npt.NDArray[np.float32]:
    return np.asarray(table[column].combine_chunks().flatten().to_numpy())


def curves(logs: list[TrainingLog]) -> Html:
    """One chart a training."""
    plots = [_learning_curves(log) for log in logs]
    return section("Learning curves", "Training loss and its terms over steps.", element("div", *plots, class_="plots"))


def _learning_curves(log: TrainingLog) -> Html:
    # The whole before its parts: it is the log's first loss when sorted so.
    names = sorted(log.terms, key=lambda name: (name not in ("loss", "total"), name))
    colours = dict(zip(names, itertools.cycle(_TERM_COLOURS), strict=False))
    return learning_curves(log.name, log.steps, {name: log.terms[name] for name in names}, colours)
