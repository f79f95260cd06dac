"""The pipeline as a picture: a box a stage, an arrow where one reads what another wrote."""

from collections.abc import Iterator
from typing import Any

from cprd_pipeline.reporting.durations import duration
from cprd_pipeline.reporting.layout import Place, lay_out, without_detours
from cprd_pipeline.reporting.markup import Html, element, join
from cprd_pipeline.reporting.plots import svg
from cprd_pipeline.store.report import StageReport

_BOX_WIDTH, _BOX_HEIGHT = 172, 66
_COLUMN, _ROW = 200, 84
# What fits into a box.
_NAME_LETTERS = 22
_MARGIN = 2.0
# Settings that name what a stage writes, not what it reads.
_WRITTEN = frozenset({"output", "report", "metrics"})

Stages = list[tuple[str, StageReport]]


def flow(stages: Stages) -> Html:
    """The picture; every box leads to the stage's card, and a line in it shows its share of the time."""
    found = lay_out(without_detours(_parents(stages)))
    total = sum(seconds_of(report) for _, report in stages)
    arrows = [element("path", d=_curve(way), class_="arrow") for way in found.arrows]
    boxes = [_box(number, stage, place, total) for number, (stage, place) in enumerate(zip(stages, found.boxes, strict=True))]
    width = (found.layers - 1) * _COLUMN + _BOX_WIDTH + 2 * _MARGIN
    height = (found.slots - 1) * _ROW + _BOX_HEIGHT + 2 * _MARGIN
    drawing = svg(join(*arrows, *boxes), width, height, "the stages and what each reads")
    return element("div", drawing, class_="scroll flow", tabindex="0", style=f"--natural:{width:g}px")


def seconds_of(report: StageReport) -> float:
    """Of the whole stage."""
    return sum(report.seconds.values(), 0.0)


def _parents(stages: Stages) -> list[frozenset[int]]:
    written: dict[str, int] = {}
    parents = []
    for number, (_, report) in enumerate(stages):
        parents.append(frozenset(written[text] for text in _read_by(report.settings) if text in written))
        if "output" in report.settings:
            written[str(report.settings["output"])] = number
    return parents


def _read_by(settings: Any) -> Iterator[str]:
    """Every text in the settings that could name an input."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            if key not in _WRITTEN:
                yield from _read_by(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from _read_by(value)
    elif isinstance(settings, str):
        yield settings


def _box(number: int, stage: tuple[str, StageReport], place: Place, total: float) -> Html:
    name, report = stage
    left, middle = _left(place), _middle(place)
    top = middle - _BOX_HEIGHT / 2
    share = seconds_of(report) / total if total else 0.0
    shown = name.replace("_", " ")
    if len(shown) > _NAME_LETTERS:
        shown = shown[: _NAME_LETTERS - 1] + "…"
    lines = [(shown, "name", 20), (fact(report), "fact", 38), (duration(seconds_of(report)), "time", 56)]
    return element(
        "a",
        element("rect", x=f"{left:g}", y=f"{top:g}", width=str(_BOX_WIDTH), height=str(_BOX_HEIGHT), rx="8", class_="box"),
        element("rect", x=f"{left + 12:g}", y=f"{top + _BOX_HEIGHT - 3:g}", width=f"{share * (_BOX_WIDTH - 24):.1f}", height="3"),
        *(element("text", text, x=f"{left + 12:g}", y=f"{top + down:g}", class_=kind) for text, kind, down in lines),
        href=f"#stage-{number + 1}",
    )


def _curve(way: list[Place]) -> str:
    """Level where it touches a box or passes a layer, with a head at its end."""
    start, *rest = way
    x, y = _left(start) + _BOX_WIDTH, _middle(start)
    path = [f"M{x:g} {y:g}"]
    for place in rest:
        left, middle = _left(place), _middle(place)
        half = (x + left) / 2
        path.append(f"C{half:g} {y:g} {half:g} {middle:g} {left:g} {middle:g}")
        if place is not rest[-1]:
            left += _BOX_WIDTH
            path.append(f"H{left:g}")
        x, y = left, middle
    return "".join([*path, "l-6-3.5m6 3.5l-6 3.5"])


def _left(place: Place) -> float:
    return place.layer * _COLUMN + _MARGIN


def _middle(place: Place) -> float:
    return place.slot * _ROW + _BOX_HEIGHT / 2 + _MARGIN


def fact(report: StageReport) -> str:
    """The count that says most about a stage; empty when its report does not hold it."""
    results = report.results
    counts = {
        "prepare": (results.get("images"), "images"),
        "train-teacher": (results.get("steps"), "steps"),
        "mine": (sum(side["candidates"] for side in results.get("directions", {}).values()) or None, "candidates"),
        "score-teacher": (results.get("scored"), "pairs scored"),
        "distill": (results.get("steps"), f"steps, {results.get('objective')}"),
        "evaluate": (len(results.get("metrics", ())) or None, "models"),
    }
    number, unit = counts.get(report.stage, (None, ""))
    return f"{number:,} {unit}" if number is not None else ""
