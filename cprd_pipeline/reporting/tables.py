"""Tables: a heading a row, numbers to the right, wide ones scroll by themselves."""

from collections.abc import Sequence

from cprd_pipeline.reporting.markup import Html, element

MISSING = "\N{EN DASH}"


def table(titles: Sequence[str], rows: Sequence[Html], kind: str) -> Html:
    """A table with one line of titles, the first of them over the rows' headings.

    Args:
        titles: Of the columns.
        rows: As `row` makes them.
        kind: Class of the style sheet.
    """
    return framed([element("tr", *(element("th", title, scope="col") for title in titles))], rows, kind)


def row(heading: str, below: str, cells: Sequence[str], kind: str = "") -> Html:
    """A line of a table.

    Args:
        heading: What it is about.
        below: In small letters under it; may be empty.
        cells: A finished `td` each, or text.
        kind: Class of the style sheet.
    """
    small = [element("small", below)] if below else []
    finished = [cell if isinstance(cell, Html) else element("td", cell) for cell in cells]
    return element("tr", element("th", heading, *small, scope="row"), *finished, class_=kind)


def with_interval(text: str, bounds: tuple[float, float] | None, digits: int) -> Html:
    """A number's cell with its interval in small letters below, where it has one."""
    below = [element("small", f"{bounds[0]:.{digits}f}\N{EN DASH}{bounds[1]:.{digits}f}")] if bounds else []
    return element("td", text, *below)


def framed(head: Sequence[Html], rows: Sequence[Html], kind: str) -> Html:
    """A table that scrolls by itself, also by keyboard."""
    content = element("table", element("thead", *head), element("tbody", *rows), class_=kind)
    return element("div", content, class_="scroll", tabindex="0")
