"""Where distillation moved the right answers: ranks before against ranks after."""

import itertools

import numpy as np
from jaxtyping import Int64

from cprd_pipeline.reporting.directions import DIRECTIONS, TITLES
from cprd_pipeline.reporting.inputs import Inputs
from cprd_pipeline.reporting.markup import Html, Section, element, join
from cprd_pipeline.reporting.plots import svg
from cprd_pipeline.reporting.verdicts import Verdicts

# First rank of each class; the last is open.
_CLASSES = (1, 2, 4, 6, 11, 21, 51, 101)
_CELL = 44
_LEFT, _TOP = 58, 40
_SIDE = len(_CLASSES) * _CELL


def movement(inputs: Inputs, verdicts: Verdicts) -> Section:
    """One picture a direction: how many queries went from which rank to which."""
    figures = []
    for number, direction in enumerate(DIRECTIONS):
        rows = (verdicts.direction == number) & (verdicts.miner_rank > 0)
        if rows.any():
            before, after = verdicts.miner_rank[rows], verdicts.student_rank[rows]
            figures.append(_figure(TITLES[direction], before, after, inputs.miner, inputs.student))
    return Section(
        "Movement of ranks",
        f"Rank of the first right answer among all items of the split, by {inputs.miner} and by {inputs.student}. Below the "
        "diagonal distillation helped, above it it hurt; a number counts queries.",
        (element("div", *figures, class_="plots wide"),),
    )


def _figure(title: str, before: Int64[np.ndarray, " Q"], after: Int64[np.ndarray, " Q"], miner: str, student: str) -> Html:
    better, worse = int((after < before).sum()), int((after > before).sum())
    total = len(before)
    fixed, broken = int(((before > 1) & (after == 1)).sum()), int(((before == 1) & (after > 1)).sum())
    shares = f"{better / total:.0%} better, {1 - (better + worse) / total:.0%} the same, {worse / total:.0%} worse"
    caption = element("figcaption", element("strong", title), element("span", shares, class_="legend"))
    note = f"{fixed:,} queries fixed (now first), {broken:,} broken (no longer first): {fixed - broken:+,} of {total:,}"
    drawn = join(_axes(miner, student), *_cells(movements(before, after)))
    picture = svg(drawn, _LEFT + _SIDE + 4.0, _TOP + _SIDE + 4.0, f"{title}: {shares}")
    return element("figure", caption, picture, element("p", note.replace("-", "\N{MINUS SIGN}"), class_="muted"))


def movements(before: Int64[np.ndarray, " Q"], after: Int64[np.ndarray, " Q"]) -> Int64[np.ndarray, "C C"]:
    """How many queries went from which class of ranks (row) to which (column)."""
    classes = len(_CLASSES)
    pairs = _class_of(before) * classes + _class_of(after)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def _class_of(ranks: Int64[np.ndarray, " Q"]) -> Int64[np.ndarray, " Q"]:
    return np.searchsorted(_CLASSES, ranks, side="right").astype(np.int64) - 1


def _names() -> list[str]:
    ends = [f"\N{EN DASH}{following - 1}" if following - 1 > first else "" for first, following in itertools.pairwise(_CLASSES)]
    return [f"{first}{end}" for first, end in zip(_CLASSES, ends, strict=False)] + [f"{_CLASSES[-1]}+"]


def _axes(miner: str, student: str) -> Html:
    parts = [
        element("text", f"{student} →", x=f"{_LEFT}", y="12", class_="axis"),
        element("text", f"{miner} ↓", x="0", y=f"{_TOP - 8}", class_="axis"),
    ]
    for number, name in enumerate(_names()):
        middle = (number + 0.5) * _CELL
        parts.append(element("text", name, x=f"{_LEFT + middle:g}", y=f"{_TOP - 8}", class_="x"))
        parts.append(element("text", name, x=f"{_LEFT - 8}", y=f"{_TOP + middle:g}", class_="y"))
    return join(*parts)


def _cells(counts: Int64[np.ndarray, "C C"]) -> list[Html]:
    # The square root, or one full cell would leave all others pale.
    strength = np.sqrt(counts / max(int(counts.max()), 1))
    cells = []
    for row, column in np.ndindex(*counts.shape):
        kind = "same" if row == column else "better" if column < row else "worse"
        x, y = _LEFT + column * _CELL, _TOP + row * _CELL
        shade = f"--strength:{strength[row, column]:.2f}"
        size = str(_CELL - 2)
        cells.append(element("rect", x=f"{x + 1}", y=f"{y + 1}", width=size, height=size, rx="4", class_="ground"))
        if not counts[row, column]:
            continue
        cells.append(element("rect", x=f"{x + 1}", y=f"{y + 1}", width=size, height=size, rx="4", class_=kind, style=shade))
        where = {"x": f"{x + _CELL / 2:g}", "y": f"{y + _CELL / 2:g}"}
        cells.append(element("text", f"{counts[row, column]}", **where, class_="cell"))
    return cells
