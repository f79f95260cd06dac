"""What is bought under one key of the store: both directions together, or each for itself."""

from dataclasses import dataclass
from typing import Literal

from cprd_pipeline.scoring.pairs import DIRECTIONS, Direction
from cprd_pipeline.scoring.plan import Plan


@dataclass(frozen=True)
class Errand:
    """Lists whose pairs share their scores.

    Args:
        key: `both` where a pair has one score, otherwise the direction.
        directions: Whose lists they are.
        plan: What is to be scored for them.
    """

    key: Literal["both", "i2t", "t2i"]
    directions: tuple[Direction, ...]
    plan: Plan


def keys_of(roles: Literal["both", "each"]) -> dict[Literal["both", "i2t", "t2i"], tuple[Direction, ...]]:
    """Directions by key, for a teacher of these roles."""
    if roles == "both":
        return {"both": DIRECTIONS}
    return {direction: (direction,) for direction in DIRECTIONS}


def describe(errand: Errand) -> str:
    """The plan in a line, before anything is loaded."""
    plan = errand.plan
    name = "plan" if errand.key == "both" else f"plan {errand.key}"
    parts = [
        f"{plan.requested:,} pairs requested",
        f"{plan.duplicate:,} named twice",
        f"{plan.stored:,} already in the store",
        *([f"{plan.elsewhere:,} of other shards"] if plan.elsewhere else []),
        f"to be scored: {len(plan.todo):,} pairs of {len(plan.images):,} images",
    ]
    return f"{name}: {'; '.join(parts)}"
