"""One figure of several models as horizontal bars, with intervals."""

from dataclasses import dataclass

from cprd_pipeline.reporting.markup import Html, element


@dataclass(frozen=True)
class Bar:
    """One model's figure.

    Args:
        label: Of the model.
        colour: Class of the style sheet.
        value: At least 0.
        interval: Where it would lie in most test sets; None when that is not known.
    """

    label: str
    colour: str
    value: float
    interval: tuple[float, float] | None


def bars(title: str, shown: list[Bar], most: float) -> Html:
    """A figure with one bar a model, from 0 to `most`; the interval is a thin line across the bar's end.

    HTML rather than SVG: labels keep their size on a phone.
    """
    rows = [_row(bar, most) for bar in shown]
    caption = element("figcaption", element("strong", title), element("span", f"of {most:g}", class_="legend"))
    return element("figure", caption, element("div", *rows, class_="bars"))


def _row(bar: Bar, most: float) -> Html:
    parts = [element("i", class_=f"bar {bar.colour}", style=f"width:{bar.value / most:.2%}")]
    if bar.interval is not None:
        low, high = (end / most for end in bar.interval)
        parts.append(element("i", class_="whisker", style=f"left:{low:.2%};width:{high - low:.2%}"))
    return element(
        "div",
        element("span", bar.label),
        element("span", *parts, class_="track"),
        element("span", f"{bar.value:.1f}"),
        class_="row",
    )
