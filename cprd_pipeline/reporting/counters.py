"""What mining and scoring counted: how many candidates, how many were dropped and why, what the teacher thinks of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cprd_pipeline.reporting.directions import TITLES
from cprd_pipeline.reporting.flow import Stages
from cprd_pipeline.reporting.markup import Html, Section, element
from cprd_pipeline.reporting.tables import MISSING, row, table


@dataclass(frozen=True)
class _Column:
    """A count of one direction of a stage.

    Args:
        title: Of the column.
        key: In the stage's results.
        form: How it is written.
    """

    title: str
    key: str
    form: Callable[[Any], str]


def _count(value: int) -> str:
    return f"{value:,}"


def _share(value: float) -> str:
    return f"{value:.1%}"


def _small_share(value: float) -> str:
    return f"{value:.2%}"


def _correlation(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


_MINED = (
    _Column("queries", "queries", _count),
    _Column("candidates", "candidates", _count),
    _Column("positive among the first k", "recall_at_k", _share),
    _Column("dropped: positives", "dropped_positive", _count),
    _Column("dropped: same content", "dropped_duplicate", _count),
    _Column("short lists", "short_lists", _count),
    _Column("queries without a positive", "queries_without_positive", _count),
)
_SCORED = (
    _Column("candidates", "candidates", _count),
    _Column("valid", "valid", _count),
    _Column("probable false negatives", "false_negatives", _count),
    _Column("share of candidates", "false_negative_share", _small_share),
    _Column("dropped for it", "dropped", _count),
    _Column("queries with a candidate above every positive", "first_is_no_positive", _share),
    _Column("Kendall's tau with the miner", "kendall_tau", _correlation),
)
_BOUGHT = (
    _Column("requested pairs", "requested", _count),
    _Column("named twice", "duplicate", _count),
    _Column("already in the store", "stored", _count),
    _Column("scored", "scored", _count),
    _Column("pairs per second", "pairs_per_second", lambda value: f"{value:,.0f}"),
)


def counters(stages: Stages) -> list[Section]:
    """A section with a table for mining and two for scoring; nothing when there was neither."""
    mined = [(name, report.results) for name, report in stages if report.stage == "mine"]
    scored = [(name, report.results) for name, report in stages if report.stage == "score-teacher"]
    tables = [
        *_table("Candidates mined", _MINED, _by_direction(mined)),
        *_table("Filters, rounds and hubs", _filter_columns(_by_direction(mined)), _flattened(_by_direction(mined))),
        *_table("Rankings by the teacher", _SCORED, _by_direction(scored)),
        *_table("Scores bought", _BOUGHT, [((name, ""), results) for name, results in scored if "requested" in results]),
    ]
    if not tables:
        return []
    explanation = (
        "Positives and items of equal content never become candidates. Valid candidates are those whose order the student learns; "
        "probable false negatives score above every annotated positive by more than the margin."
    )
    return [Section("Mining and filters", explanation, tuple(tables))]


Rows = list[tuple[tuple[str, str], dict[str, Any]]]


def _by_direction(stages: list[tuple[str, dict[str, Any]]]) -> Rows:
    return [
        ((name, TITLES[direction]), found) for name, results in stages for direction, found in results.get("directions", {}).items()
    ]


def _filter_columns(counted: Rows) -> tuple[_Column, ...]:
    """A column for each filter that dropped something, then what earlier rounds added and how candidates repeat."""
    filters = dict.fromkeys(name for _, found in counted for name, dropped in found.get("dropped_by_filter", {}).items() if dropped)
    return (
        *(_Column(f"dropped: {name.replace('_', ' ')}", f"filter {name}", _count) for name in filters),
        _Column("added by earlier rounds", "merged", _count),
        _Column("lists with the most frequent item", "hub max", _count),
        _Column("items in no list", "hub never", _share),
    )


def _flattened(counted: Rows) -> Rows:
    """The same rows with the counters of filters and hubs beside the others; nothing of reports that lack them."""
    return [
        (
            heading,
            found
            | {f"filter {name}": dropped for name, dropped in found["dropped_by_filter"].items()}
            | {f"hub {name}": found["hubs"][name] for name in ("max", "never")},
        )
        for heading, found in counted
        if "dropped_by_filter" in found and "hubs" in found
    ]


def _table(title: str, columns: tuple[_Column, ...], counted: Rows) -> list[Html]:
    if not counted:
        return []
    lines = []
    for (stage, direction), found in counted:
        values = [found.get(column.key) for column in columns]
        cells = [MISSING if value is None else column.form(value) for value, column in zip(values, columns, strict=True)]
        lines.append(row(stage.replace("_", " "), direction, cells))
    return [element("h3", title), table(["", *(column.title for column in columns)], lines, "counters")]
