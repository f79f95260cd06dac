"""Intervals and tests beside the figures, counters of mining and scoring, and the movement of ranks."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cprd_pipeline.errors import StoreError
from cprd_pipeline.reporting.counters import counters
from cprd_pipeline.reporting.movement import movements
from cprd_pipeline.store.report import StageReport, read_report
from tests.reporting.conftest import write


def with_results(own, **results):
    """Change what the evaluation's report holds."""
    path = own.root / "evaluate.json"
    content = json.loads(path.read_text())
    content["results"] |= results
    path.write_text(json.dumps(content))


def test_intervals_and_winners_are_shown(own):
    """Below their figures and across the bar's end; a star where a student is better than all others beyond chance."""
    intervals = {"cprd": {"rsum": [300.0, 420.0], "i2t_r1": [10.0, 20.5], "t2i_mrr": [0.1234, 0.25]}}
    with_results(own, intervals=intervals, clearly_best={"i2t_r1": "base"})
    text = write(own).text
    assert "<small>300.0\N{EN DASH}420.0</small>" in text
    assert "<small>10.0\N{EN DASH}20.5</small>" in text
    assert "<small>0.123\N{EN DASH}0.250</small>" in text
    assert 'class="whisker" style="left:50.00%;width:20.00%"' in text
    star, row = "\N{BLACK STAR}</b>", text[text.index('<th scope="row">base</th>') :]
    assert text.count(star) == 1
    assert row.index(star) < row.index("</tr>")


def test_the_evaluations_own_intervals_are_shown(made, written):
    """Of every model's RSUM, as its report has them."""
    intervals = read_report(made.root / "evaluate.json").results["intervals"]
    assert set(intervals) == {"base", "cprd", "teacher"}
    for figures in intervals.values():
        low, high = figures["rsum"]
        assert f"<small>{low:.1f}\N{EN DASH}{high:.1f}</small>" in written.text


def test_agreement_with_the_teacher_is_shown(made, written):
    """One row a student and direction, with the bands that the evaluation knows."""
    agreement = read_report(made.root / "evaluate.json").results["agreement"]
    table = written.text[written.text.index('id="agreement"') :]
    for model, found in agreement.items():
        for direction, title in (("i2t", "image → text"), ("t2i", "text → image")):
            cells = []
            for name, digits in (("kendall_tau", 2), ("ndcg10", 1)):
                low, high = found[direction][f"{name}_interval"]
                number = f"{found[direction][name]:.{digits}f}".replace("-", "\N{MINUS SIGN}")
                cells.append(f"<td>{number}<small>{low:.{digits}f}\N{EN DASH}{high:.{digits}f}</small></td>")
            bands = [band["kendall_tau"] for band in found[direction]["bands"]]
            cells += [f"<td>{value:.2f}</td>".replace("-", "\N{MINUS SIGN}") for value in bands]
            assert f'<th scope="row">{model}<small>{title}</small></th>{"".join(cells)}</tr>' in table


def test_intervals_of_another_evaluation_are_not_shown(own):
    """The report of an evaluation with other figures says nothing about these."""
    metrics = read_report(own.root / "evaluate.json").results["metrics"]
    metrics["cprd"]["rsum"] += 1
    with_results(own, intervals={"cprd": {"rsum": [300.0, 420.0]}}, metrics=metrics)
    assert "300.0" not in write(own).text


def test_intervals_in_another_form_are_refused(own):
    """The report and the place in it are named."""
    with_results(own, intervals={"cprd": {"rsum": 3.0}})
    with pytest.raises(StoreError, match=r"the report evaluate: intervals.cprd.rsum: .*run evaluate again"):
        write(own)


def test_counters_of_mining_and_scoring():
    """One row a direction; what a stage did not count is a dash, and a run without either has no such section."""
    mined = {"directions": {"i2t": {"queries": 1200, "candidates": 34567, "recall_at_k": None, "dropped_positive": 7}}}
    scored = {"directions": {"t2i": {"candidates": 34000, "kendall_tau": -0.25, "first_is_no_positive": 0.155}}, "requested": 5000}
    stages = [("mine_1", StageReport("mine", {}, mined, [])), ("score", StageReport("score-teacher", {}, scored, []))]
    (section,) = counters(stages)
    tables = "".join(section.content)
    dash = "<td>\N{EN DASH}</td>"
    assert f"mine 1<small>image → text</small></th><td>1,200</td><td>34,567</td>{dash}<td>7</td>" in tables
    assert "<td>15.5%</td><td>\N{MINUS SIGN}0.25</td></tr>" in tables
    assert f'<th scope="row">score</th><td>5,000</td>{dash}' in tables
    assert counters([]) == []


RANKS = hnp.arrays(np.int64, st.integers(0, 50), elements=st.integers(1, 5000))


@settings(deadline=None)
@given(RANKS)
def test_movements_count_every_query_once(before):
    """Halving every rank moves queries to the left only; staying keeps all on the diagonal."""
    after = (before + 1) // 2
    assert movements(before, after).sum() == len(before)
    assert not np.triu(movements(before, after), 1).any()
    assert np.trace(movements(before, before)) == len(before)


@pytest.mark.parametrize(
    ("rank", "place"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (10, 3), (11, 4), (50, 5), (51, 6), (100, 6), (101, 7)]
)
def test_classes_of_ranks(rank, place):
    """As the axis names them: 1, 2-3, 4-5, 6-10, 11-20, 21-50, 51-100, 101+."""
    assert movements(np.array([rank]), np.array([1]))[place, 0] == 1
