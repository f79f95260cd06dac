"""The picture of the pipeline: where boxes go, and which arrows there are."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.reporting.flow import fact, flow
from cprd_pipeline.reporting.layout import Place, lay_out, without_detours
from cprd_pipeline.store.report import StageReport


@st.composite
def graphs(draw):
    """Up to eight boxes, each needing some of the earlier ones."""
    return [draw(st.frozensets(st.integers(0, box - 1))) if box else frozenset() for box in range(draw(st.integers(0, 8)))]


@settings(deadline=None)
@given(graphs())
def test_arrows_go_right_and_nothing_shares_a_place(parents):
    """Each arrow leads from a box to a later layer, bending once in each layer between; all places are inside and distinct."""
    found = lay_out(parents)
    assert len(set(found.boxes)) == len(found.boxes) == len(parents)
    assert len(found.arrows) == sum(len(mine) for mine in parents)
    bends = {place for arrow in found.arrows for place in arrow[1:-1]}
    assert not bends & set(found.boxes)
    for arrow in found.arrows:
        assert [place.layer for place in arrow] == list(range(arrow[0].layer, arrow[-1].layer + 1))
        assert {arrow[0], arrow[-1]} <= set(found.boxes)
    for place in {*found.boxes, *bends}:
        assert 0 <= place.layer < found.layers
        assert 0 <= place.slot <= found.slots - 1


@settings(deadline=None)
@given(graphs())
def test_dropped_arrows_are_told_by_longer_ways(parents):
    """What each box needs, directly or through others, stays the same; and no arrow that is left can be dropped."""

    def above(graph, box):
        return {box}.union(*(above(graph, parent) for parent in graph[box]))

    kept = without_detours(parents)
    for box, mine in enumerate(kept):
        assert above(kept, box) == above(parents, box)
        for parent in mine:
            assert not any(parent in above(kept, other) for other in mine - {parent})


def stage(command, reads, writes, results=None, seconds=1.0):
    """A report whose settings name files as the real ones do."""
    return StageReport(command, {"corpus": reads, "output": writes}, results or {}, [], {"working": seconds})


def test_arrows_follow_the_settings():
    """A stage that reads what another wrote is right of it; names in boxes are escaped, and each leads to its card."""
    stages = [
        ("prepare", stage("prepare", "", "data/corpus", {"images": 1600})),
        ("mine_<b>", stage("mine", "data/corpus", "data/candidates", seconds=3.0)),
        ("other", stage("prepare", "", "data/other")),
    ]
    drawn = flow(stages)
    assert drawn.count('class="arrow"') == 1
    assert "mine &lt;b&gt;" in drawn
    assert "1,600 images" in drawn
    assert re.findall(r'href="(#[^"]*)"', drawn) == ["#stage-1", "#stage-2", "#stage-3"]
    x_of = [float(x) for x in re.findall(r'<rect x="([\d.]+)"[^>]*class="box"', drawn)]
    assert x_of[0] == x_of[2] < x_of[1]
    assert [float(width) for width in re.findall(r'width="([\d.]+)" height="3"', drawn)] == [29.6, 88.8, 29.6]


def test_long_names_are_cut_to_their_box():
    """Twenty-two letters fit."""
    drawn = flow([(name, stage("mine", "", "")) for name in ("score_teacher_unpaired", "score_teacher_unpaired_2")])
    assert ">score teacher unpaired<" in drawn
    assert ">score teacher unpaire…<" in drawn


def test_columns_are_centred():
    """One box beside two stands between them."""
    found = lay_out([frozenset(), frozenset(), frozenset({0, 1})])
    assert found.boxes == [Place(0, 0.0), Place(0, 1.0), Place(1, 0.5)]


def test_facts_of_a_report_that_holds_none():
    """An unknown stage, or one that was written by another version, has a box without a count."""
    assert [fact(stage(command, "", "")) for command in ("prepare", "mine", "evaluate", "something")] == [""] * 4
