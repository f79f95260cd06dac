"""Every filter and sampler, alone and together with the others, against a slow loop."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cprd_pipeline.mining.settings import FilterSettings, MineSettings, SamplerSettings
from tests.mining.slow import SlowMiner
from tests.mining.small_world import DIRECTIONS, World, earlier_rounds, mined, worlds, write_groups

COSINES = st.integers(-4, 4).map(lambda number: number / 8)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Off half of the time, so that combinations of few filters occur."""
    return st.none() | strategy


@st.composite
def filter_values(draw: st.DrawFn) -> dict[str, Any]:
    """Filters that do not contradict each other."""
    low, high = draw(maybe(COSINES)), draw(maybe(COSINES))
    if low is not None and high is not None and low > high:
        low, high = high, low
    return {
        "first_rank": draw(st.integers(1, 3)),
        "last_rank": draw(maybe(st.integers(6, 9))),
        "min_similarity": low,
        "max_similarity": high,
        "absolute_margin": draw(maybe(COSINES)),
        "relative_margin": draw(maybe(COSINES)),
        "same_text": draw(st.booleans()),
        "similar_text": draw(maybe(COSINES)),
    }


@st.composite
def group_files(draw: st.DrawFn, world: World) -> tuple[str, dict[str, list[str]]]:
    """A side, and the groups of some of its rows."""
    column, direction = draw(st.sampled_from([("image_id", "i2t"), ("caption_id", "t2i")]))
    some = st.lists(st.sampled_from("xyz"), max_size=2)
    return column, {name: draw(some) for name in world.ids(direction)[0]}


def groups_of_contents(world: World, column: str, groups: dict[str, list[str]]) -> tuple[dict[int, set[str]], dict[int, set[str]]]:
    """Groups of image contents and of texts; the side that the file does not name has those of its positives."""
    direction, side = ("i2t", 0) if column == "image_id" else ("t2i", 1)
    own: dict[int, set[str]] = {}
    for name, content in zip(world.ids(direction)[0], world.contents(direction)[0], strict=True):
        own.setdefault(content, set()).update(groups[name])
    other: dict[int, set[str]] = {}
    for pair in world.positives():
        other.setdefault(pair[1 - side], set()).update(own[pair[side]])
    return (own, other) if side == 0 else (other, own)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    data=st.data(),
    world=worlds(),
    filters=filter_values(),
    kind=st.sampled_from(SamplerSettings.model_fields["kind"].annotation.__args__),
)
def test_all_filters_and_samplers_equal_a_slow_loop(data: st.DataObject, world: World, filters: dict[str, Any], kind: str) -> None:
    """Candidates, similarities and every counter of both directions, with earlier rounds merged."""
    k = data.draw(st.integers(1, 4))
    merged = data.draw(st.lists(earlier_rounds(world), max_size=2))
    rankings = data.draw(earlier_rounds(world)) if kind == "teacher" else None
    grouped = data.draw(maybe(group_files(world)))
    if kind == "teacher":
        filters |= {"first_rank": 1, "last_rank": None}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = world.write(folder / "corpus")
        if grouped is not None:
            filters["groups"] = write_groups(folder / "groups.csv", *grouped)
        sampler = {
            "kind": kind,
            "pool": data.draw(maybe(st.integers(k, 6))),
            "temperature": data.draw(st.sampled_from([0.05, 1.0])),
            "strata": data.draw(st.integers(1, 4)),
            "seed": data.draw(st.integers(0, 9)),
            "rankings": None if rankings is None else rankings.write(world, corpus, folder / "rankings", "rankings"),
        }
        run = MineSettings(
            k=k,
            corpus=folder / "corpus",
            filters=FilterSettings(**filters),
            sampler=SamplerSettings(**sampler),
            merge=[earlier.write(world, corpus, folder / f"earlier-{n}", "candidates") for n, earlier in enumerate(merged)],
        )
        found = mined(world, corpus, run)
    groups = groups_of_contents(world, *grouped) if grouped is not None else ({}, {})
    for direction in DIRECTIONS:
        slow = SlowMiner(world, run, direction, groups, merged, rankings)
        assert found[direction] == [slow.row(number) for number in range(len(found[direction]))]
