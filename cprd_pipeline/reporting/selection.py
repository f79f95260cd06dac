"""Which queries the gallery shows: every filter has its share, the rest is drawn at random.

Shape suffix: Q queries of the split.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from cprd_pipeline.reporting.directions import DIRECTIONS
from cprd_pipeline.reporting.settings import GallerySettings
from cprd_pipeline.reporting.verdicts import Verdicts

RANDOM = "random"


@dataclass(frozen=True)
class Group:
    """Queries of the whole split that have something in common.

    Args:
        key: Its name for the page's script.
        members: Rows of the rankings, ascending.
        order: For each query of the split, what a sorted display goes by, lowest first.
        extremes: The gallery takes the first of that order; otherwise it draws by seed.
    """

    key: str
    members: Int64[np.ndarray, " M"]
    order: Float64[np.ndarray, " Q"]
    extremes: bool


def groups_of(verdicts: Verdicts) -> list[Group]:
    """The groups behind the page's filters; a query may be in several."""
    return [
        Group("fixed", np.flatnonzero(verdicts.fixed), -verdicts.miner_rank.astype(np.float64), False),
        Group("broken", np.flatnonzero(verdicts.broken), -verdicts.student_rank.astype(np.float64), False),
        Group("disagree", np.flatnonzero(verdicts.disagree), verdicts.agreement, True),
        Group("false_negative", np.flatnonzero(verdicts.false_negative), -verdicts.excess, True),
    ]


def select(verdicts: Verdicts, groups: list[Group], settings: GallerySettings) -> dict[str, list[int]]:
    """Rows of the rankings to show, by the group they were taken for; `random` for the others.

    For each direction the groups and the random draw are dealt one query each in turn until there are enough.
    """
    taken: dict[str, list[int]] = {key: [] for key in (*(group.key for group in groups), RANDOM)}
    for number in range(len(DIRECTIONS)):
        rows = np.flatnonzero(verdicts.direction == number)
        generator = np.random.default_rng([settings.seed, number])
        piles = {group.key: _pile(group, rows, generator) for group in groups}
        piles[RANDOM] = generator.permutation(rows).tolist()
        _deal(piles, min(settings.queries, len(rows)), taken)
    return taken


def _pile(group: Group, rows: Int64[np.ndarray, " R"], generator: np.random.Generator) -> list[int]:
    """A group's queries of one direction, those to be taken first in front."""
    members = group.members[np.isin(group.members, rows)]
    if group.extremes:
        members = members[np.argsort(group.order[members], kind="stable")]
    else:
        members = generator.permutation(members)
    return [int(row) for row in members]


def _deal(piles: dict[str, list[int]], wanted: int, taken: dict[str, list[int]]) -> None:
    """Take one query from each pile in turn; the last pile holds every query, so there are always enough."""
    seen: set[int] = set()
    waiting = {key: iter(pile) for key, pile in piles.items()}
    while len(seen) < wanted:
        for key, pile in waiting.items():
            row = next((row for row in pile if row not in seen), None)
            if row is not None and len(seen) < wanted:
                seen.add(row)
                taken[key].append(row)
