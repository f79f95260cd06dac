"""What a user may want to change after a run in which a filter took too much."""

from typing import Any

from cprd_pipeline.mining.settings import FilterSettings

MOST_DROPPED = 0.5
"""Share of the items looked at that a filter may keep out before the report speaks up."""
MOST_SHORT = 0.05
"""Share of the lists that may be short."""

_SETTINGS = {
    "rank": ("lower first_rank or raise last_rank", ("first_rank", "last_rank")),
    "min_similarity": ("lower it", ("min_similarity",)),
    "max_similarity": ("raise it", ("max_similarity",)),
    "absolute_margin": ("lower it, or use a relative margin", ("absolute_margin",)),
    "relative_margin": ("lower it", ("relative_margin",)),
    "same_group": ("make the groups finer", ("groups",)),
    "same_text": ("look for captions that many images share", ("same_text",)),
    "similar_text": ("raise it", ("similar_text",)),
}


def advise(results: dict[str, dict[str, Any]], filters: FilterSettings, k: int) -> list[str]:
    """Lines of advice, most urgent first.

    Args:
        results: Of each direction, as `summary.summarise` gives them.
        filters: What was in force.
        k: Candidates a query.
    """
    lines = []
    for direction, found in results.items():
        dropped = found["dropped_by_filter"]
        worst = max(dropped, key=lambda name: dropped[name])
        if dropped[worst] and found["short_lists"] > MOST_SHORT * found["queries"]:
            short = f"{found['short_lists']:,} of {found['queries']:,} lists have fewer than {k} candidates"
            lines.append(f"{direction}: {short}; {_blame(worst, filters)}")
    for direction, found in results.items():
        dropped = found["dropped_by_filter"]
        looked_at = found["passed"] + sum(dropped.values())
        for name, count in dropped.items():
            # A range of ranks drops what it says, no more.
            if name != "rank" and count > MOST_DROPPED * looked_at:
                lines.append(f"{direction}: {count / looked_at:.0%} of the items looked at were dropped; {_blame(name, filters)}")
    return lines


def _blame(name: str, filters: FilterSettings) -> str:
    what, settings = _SETTINGS[name]
    values = ", ".join(f"{setting} {getattr(filters, setting)}" for setting in settings)
    return f"filters.{values}: {what}"
