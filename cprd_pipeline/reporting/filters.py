"""The gallery's filters: what each means, how many queries of the split it fits, and which of the shown ones."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from cprd_pipeline.reporting.inputs import Inputs
from cprd_pipeline.reporting.selection import RANDOM, Group
from cprd_pipeline.reporting.verdicts import DISAGREEING_SHARE, Verdicts


def filters(
    inputs: Inputs, verdicts: Verdicts, groups: list[Group], taken: dict[str, list[int]], rows: list[int]
) -> list[dict[str, Any]]:
    """JSON of each filter: `key`, `label`, `about` and `queries`, positions in `rows` in the order of the display.

    Args:
        inputs: Of the run.
        verdicts: On every query of the split.
        groups: Of the split's queries.
        taken: Rows that were chosen, by the group they were chosen for.
        rows: All chosen rows, ascending.
    """
    total = len(verdicts.direction)
    place = {row: number for number, row in enumerate(rows)}
    explained = _explanations(inputs)
    made = [_filter("all", "all", f"Everything in the gallery, {len(rows):,} of {total:,} queries.", range(len(rows)))]
    for group in groups:
        label, about = explained[group.key]
        shown = _in_order(group, rows)
        many = len(group.members)
        counts = f"{many:,} of {total:,} queries ({many / max(total, 1):.1%}); {len(shown):,} of them here, {_SORTED[group.key]}."
        made.append(_filter(group.key, label, f"{about} {counts}", (place[row] for row in shown)))
    about = "Drawn without looking at any result: what an ordinary query is like."
    return [*made, _filter(RANDOM, "random sample", about, (place[row] for row in sorted(taken[RANDOM])))]


_SORTED = {
    "fixed": "those that came from furthest down first",
    "broken": "those that fell furthest first",
    "disagree": "the strongest disagreement first",
    "false_negative": "the largest lead first",
}


def _explanations(inputs: Inputs) -> dict[str, tuple[str, str]]:
    miner, student = inputs.miner, inputs.student
    return {
        "fixed": (
            "fixed by distillation",
            f"{miner} ranks no right answer first among all items of the split, {student} does.",
        ),
        "broken": (
            "broken by distillation",
            f"{miner} ranks a right answer first among all items of the split, {student} does not any more.",
        ),
        "disagree": (
            "teacher and student disagree most",
            f"The {DISAGREEING_SHARE:.0%} of each direction where Spearman's correlation between the teacher's and {student}'s "
            "order of the whole list is lowest.",
        ),
        "false_negative": (
            "probable false negatives",
            "The teacher scores a candidate that nobody annotated above every annotated positive.",
        ),
    }


def _in_order(group: Group, rows: list[int]) -> list[int]:
    """The group's queries among the chosen ones."""
    members = np.intersect1d(group.members, np.array(rows, dtype=np.int64))
    return [int(row) for row in members[np.argsort(group.order[members], kind="stable")]]


def _filter(key: str, label: str, about: str, queries: Iterable[int]) -> dict[str, Any]:
    return {"key": key, "label": label, "about": about, "queries": list(queries)}
