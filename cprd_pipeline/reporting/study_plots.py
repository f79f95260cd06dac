"""The plots of a study, one section for each of the paper's three findings."""

from collections.abc import Sequence
from itertools import cycle
from statistics import mean
from typing import Any

import numpy as np
from jaxtyping import Float64

from cprd_pipeline.reporting.markup import Html, Section, element
from cprd_pipeline.reporting.plots import Curve, chart
from cprd_pipeline.reporting.tables import MISSING, row, table

_ARM_COLOURS = ("muted", "candidate", "positive", "fourth", "student", "fifth", "sixth", "seventh")


def distributions(results: dict[str, Any]) -> Section:
    """Both sides of the same random pairs, over a normal distribution."""
    shapes = results["distributions"]
    edges = np.array(shapes["edges"])
    sides = (("teacher", "teacher scores", "positive"), ("student", f"similarities of {shapes['student_name']}", "student"))
    curves = [_histogram(label, colour, edges, shapes[name]["shares"]) for name, label, colour in sides]
    curves.append(Curve("normal", "muted", (edges[:-1] + edges[1:]) / 2, np.array(shapes["normal"])))
    lines = []
    for name, label, _ in sides:
        one = shapes[name]
        lines.append(row(label, "", [_number(one["skewness"]), _number(one["excess_kurtosis"]), f"{one['top_share']:.1%}"]))
    return _section(
        "Distributions",
        "Finding 1: teacher scores and similarities of the same random pairs, each brought to mean 0 and standard deviation 1.",
        [chart("The same random pairs", curves, "standard deviations from the mean", "share of the pairs", percent=True)],
        table(["", "skewness", "excess kurtosis", "fullest bin"], lines, "counters"),
    )


def agreement_by_rank(results: dict[str, Any]) -> Section:
    """Every arm's order against the teacher's, and the teacher's against the truth."""
    bands, truth = results["bands"]["bands"], results["bands"]["truth"]
    by_arm = results["bands"]["arms"]
    found = {one["label"]: [_mean(by_arm[one["name"]][band]) for band in bands] for one in results["arms"]}
    plots = [_over_ranks("Students against the teacher", bands, found)]
    if truth:
        of_teacher = {"teacher against the truth": [truth["bands"][band] for band in bands]}
        plots.append(_over_ranks("Teacher against the truth", bands, of_teacher))
        found |= of_teacher
    lines = [row(label, "", [_number(value) for value in values]) for label, values in found.items()]
    return _section(
        "Agreement by rank",
        "Finding 2: by how much more pairs of near candidates stand in the teacher's order than in the reverse, within bands of "
        "its ranks: 1 the same order, 0 unrelated. Valid: hard negatives that pass the rankings' validity rule; rest: all others.",
        plots,
        table(["", *(band.replace("-", "\N{EN DASH}") for band in bands)], lines, "counters"),
    )


def gradients(results: dict[str, Any]) -> list[Section]:
    """Cosine of the two gradients over the steps; nothing when no training measured it."""
    curves, lines = [], []
    for arm, colour in zip(results["arms"], cycle(_ARM_COLOURS), strict=False):
        if one := results["cosines"].get(arm["name"]):
            curves.append(Curve(arm["label"], colour, np.array(one["steps"], dtype=np.float64), np.array(one["mean"])))
            lines.append(row(arm["label"], "", [_number(value) for value in (mean(one["by_seed"]), *one["by_seed"])]))
    if not curves:
        return []
    section = _section(
        "Gradients",
        "Finding 3: cosine between the gradients of the contrastive and of the distillation loss while the student trains, mean "
        "over seeds. Above 0 they pull together, below 0 apart.",
        [chart("Cosine of the two gradients", curves, "step", "cosine")],
        table(["", "mean", *(f"seed {seed}" for seed in results["seeds"])], lines, "counters"),
    )
    return [section]


def _section(title: str, explanation: str, plots: Sequence[Html], numbers: Html) -> Section:
    return Section(title, explanation, (element("div", *plots, class_="plots wide"), numbers))


def _histogram(label: str, colour: str, edges: Float64[np.ndarray, " bins_1"], shares: Sequence[float]) -> Curve:
    """Every bin gives its two edges, and the area closes at zero on both sides."""
    return Curve(label, colour, np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(shares, 2), [0.0]]), filled=True)


def _over_ranks(title: str, bands: Sequence[str], found: dict[str, list[float | None]]) -> Html:
    """One line each, through the middles of the bands that are ranges of ranks."""
    curves = []
    for (label, values), colour in zip(found.items(), cycle(_ARM_COLOURS), strict=False):
        points = [(_middle(band), value) for band, value in zip(bands, values, strict=True) if "-" in band and value is not None]
        if points:
            x, y = np.array(points, dtype=np.float64).T
            curves.append(Curve(label, colour, x, y))
    return chart(title, curves, "rank by the teacher", "agreement")


def _middle(band: str) -> float:
    return mean(float(end) for end in band.split("-"))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{round(value, 2) + 0.0:+.2f}".replace("-", "\N{MINUS SIGN}")
