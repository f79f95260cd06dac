"""Small charts as inline SVG; colours come from the page's style sheet, so they follow light and dark."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cprd_pipeline.reporting.markup import Html, element, join

_WIDTH, _HEIGHT = 360, 216
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 22, 38
_MOST_BINS = 48
_MOST_POINTS = 240


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Args:
        label: For the legend.
        colour: Class of the style sheet: `positive`, `candidate`, `student`, `fourth`, `fifth`.
        x: Ascending.
        y: One value each.
        filled: Shade the area below it.
    """

    label: str
    colour: str
    x: Float[np.ndarray, " N"]
    y: Float[np.ndarray, " N"]
    filled: bool = False


def histogram(title: str, x_label: str, groups: dict[str, Float[np.ndarray, " _"]], colours: dict[str, str]) -> Html:
    """Distributions over one another, each as shares of its own group.

    Args:
        title: Of the figure.
        x_label: What is measured.
        groups: Values of each group, finite; a group may be empty.
        colours: Colour class of each group.
    """
    filled = {label: values for label, values in groups.items() if len(values)}
    if not filled:
        return chart(title, [], x_label, "")
    low = min(float(values.min()) for values in filled.values())
    high = max(float(values.max()) for values in filled.values())
    # About the square root of the smallest group, so that a handful of values does not become a comb.
    bins = int(min(_MOST_BINS, max(8.0, 2 * math.sqrt(min(len(values) for values in filled.values())))))
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    curves = []
    for label, values in filled.items():
        shares = np.histogram(values, edges)[0] / len(values)
        # Steps: every bin gives its two edges, and the area closes at zero on both sides.
        x = np.concatenate([[edges[0]], np.repeat(edges, 2)[1:-1], [edges[-1]]])
        y = np.concatenate([[0.0], np.repeat(shares, 2), [0.0]])
        curves.append(Curve(f"{label} ({len(values):,})", colours[label], x, y, filled=True))
    return chart(title, curves, x_label, "share of the group", percent=True)


def learning_curves(
    title: str, steps: Float[np.ndarray, " N"], terms: dict[str, Float[np.ndarray, " N"]], colours: dict[str, str]
) -> Html:
    """Losses over training steps; long logs are thinned to means of equal stretches.

    Args:
        title: Which training.
        steps: Ascending.
        terms: Values of each term.
        colours: Colour class of each term.
    """
    stretches = np.array_split(np.arange(len(steps)), min(len(steps), _MOST_POINTS))
    x = np.array([steps[part].mean() for part in stretches])
    curves = [
        Curve(label, colours[label], x, np.array([values[part].mean() for part in stretches])) for label, values in terms.items()
    ]
    return chart(title, curves, "step", "loss")


def chart(title: str, curves: list[Curve], x_label: str, y_label: str, *, percent: bool = False) -> Html:
    """A figure with a legend and named axes, both from the data, the y axis from zero where the data allow it."""
    legend = [element("span", element("i", class_=f"swatch {curve.colour}"), curve.label) for curve in curves]
    caption = element("figcaption", element("strong", title), element("span", *legend, class_="legend"))
    if not curves:
        return element("figure", caption, element("p", "nothing to show", class_="muted"))
    frame = _Frame.around(curves)
    drawn = join(frame.axes(percent), frame.names(x_label, y_label), *(frame.line(curve) for curve in curves))
    summary = f"{title}: {', '.join(curve.label for curve in curves)}"
    return element("figure", caption, svg(drawn, float(_WIDTH), float(_HEIGHT), summary))


def svg(drawn: Html, width: float, height: float, summary: str) -> Html:
    """A drawing that fills its column, with a sentence for those who do not see it."""
    return element("svg", drawn, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=summary)


@dataclass(frozen=True)
class _Frame:
    """The plotting area and the data's range in it."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def around(cls, curves: list[Curve]) -> "_Frame":
        x = np.concatenate([curve.x for curve in curves])
        y = np.concatenate([curve.y for curve in curves])
        y_low, y_high = min(0.0, float(y.min())), float(y.max()) * 1.05
        x_low, x_high = float(x.min()), float(x.max())
        return cls(x_low, x_high if x_high > x_low else x_low + 1, y_low, y_high if y_high > y_low else y_low + 1)

    def x(self, value: float) -> float:
        return _LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (_HEIGHT - _TOP - _BOTTOM)

    def line(self, curve: Curve) -> Html:
        points = " ".join(f"{self.x(float(x)):.1f},{self.y(float(y)):.1f}" for x, y in zip(curve.x, curve.y, strict=True))
        area = element("polygon", points=points, class_=f"area {curve.colour}") if curve.filled else Html("")
        return join(area, element("polyline", points=points, class_=f"line {curve.colour}"))

    def axes(self, percent: bool) -> Html:
        parts = []
        for value in ticks(self.y_low, self.y_high, 4):
            y = f"{self.y(value):.1f}"
            parts.append(element("line", x1=str(_LEFT), x2=str(_WIDTH - _RIGHT), y1=y, y2=y, class_="grid"))
            text = f"{value * 100:g} %" if percent else f"{value:g}"
            parts.append(element("text", text, x=str(_LEFT - 5), y=y, class_="y"))
        for value in ticks(self.x_low, self.x_high, 5):
            parts.append(element("text", f"{value:,g}", x=f"{self.x(value):.1f}", y=str(_HEIGHT - _BOTTOM + 15), class_="x"))
        return join(*parts)

    def names(self, x_label: str, y_label: str) -> Html:
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        return join(
            element("text", x_label, x=f"{middle:g}", y=str(_HEIGHT - 6), class_="x axis"),
            element("text", y_label, x="0", y="10", class_="axis"),
        )


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) inside a range, roughly `about` of them."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) + 0.0 for index in range(first, last + 1)]
