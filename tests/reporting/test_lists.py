"""Lists as flat arrays, and the verdicts on them, against slow loops."""

import numpy as np
import pytest

from cprd_pipeline.reporting.inputs import read_inputs
from cprd_pipeline.reporting.lists import STUDENT, TEACHER, lists_of
from cprd_pipeline.reporting.verdicts import verdicts_of
from tests.reporting.conftest import settings_of


@pytest.fixture(scope="module")
def inputs(made):
    """What the page of the small run is made from."""
    return read_inputs(settings_of(made))


@pytest.fixture(scope="module")
def lists(inputs):
    """Of the small run."""
    return lists_of(inputs.rankings, inputs.student_lists)


@pytest.fixture(scope="module")
def verdicts(inputs, lists):
    """Of the small run."""
    return verdicts_of(inputs, lists)


def listed(made, ranking):
    """Rows of a query's items, candidates first, and its row."""
    queries, items = made.sides(ranking["direction"])
    rows = [items.row_of[item] for item in ranking["candidate_ids"] + ranking["positive_ids"]]
    return queries.row_of[ranking["query_id"]], rows


def test_values_and_places_are_those_of_miner_teacher_and_student(made, inputs, lists):
    """Every item of every list has its three values, and its place in each order with positives after their equals."""
    matrices = (made.similarities["base"], made.teacher_scores, made.similarities["cprd"])
    for number, ranking in enumerate(inputs.rankings.to_pylist()):
        query, rows = listed(made, ranking)
        here = lists.items(number)
        positives = len(rows) - len(ranking["positive_ids"])
        assert lists.is_positive[here].tolist() == [place >= positives for place in range(len(rows))]
        for matrix, values, places in zip(matrices, lists.values[:, here], lists.places[:, here], strict=True):
            expected = made.row(matrix, ranking["direction"], query)[rows]
            assert values == pytest.approx(expected, abs=1e-6)
            order = sorted(range(len(rows)), key=lambda item, values=values: (-values[item], item))
            assert places.tolist() == [order.index(item) + 1 for item in range(len(rows))]


def test_ranks_are_counted_among_all_items(made, inputs, verdicts):
    """1 + the items of the split that are at least as similar as the best positive and no positives themselves."""
    for number, ranking in enumerate(inputs.rankings.to_pylist()):
        query, _ = listed(made, ranking)
        positives = made.positives(ranking["direction"], query)
        wrong = [row for row in made.rows_of_split(made.sides(ranking["direction"])[1]) if row not in positives]
        for name, found in (("base", verdicts.miner_rank), ("cprd", verdicts.student_rank)):
            values = made.row(made.similarities[name], ranking["direction"], query)
            best = max(values[row] for row in positives)
            assert found[number] == 1 + sum(values[row] >= best for row in wrong)


def test_fixed_and_broken_make_up_the_change_of_recall(inputs, verdicts):
    """Fixed minus broken queries are the difference of R@1, in queries."""
    for number, direction in enumerate(("i2t", "t2i")):
        rows = verdicts.direction == number
        change = inputs.metrics["cprd"][f"{direction}_r1"] - inputs.metrics["base"][f"{direction}_r1"]
        assert (verdicts.fixed & rows).sum() - (verdicts.broken & rows).sum() == pytest.approx(change / 100 * rows.sum(), abs=1e-2)
    assert not (verdicts.fixed & verdicts.broken).any()


def test_agreement_is_spearmans_correlation(lists, verdicts):
    """The correlation of the places; the tenth with the lowest is where they disagree most."""
    for number, found in enumerate(verdicts.agreement):
        here = lists.items(number)
        expected = np.corrcoef(lists.places[TEACHER, here], lists.places[STUDENT, here])[0, 1]
        assert found == pytest.approx(expected)
    for number in (0, 1):
        rows = verdicts.direction == number
        assert verdicts.disagree[rows].sum() == np.ceil(rows.sum() / 10)
        assert verdicts.agreement[rows & verdicts.disagree].max() <= verdicts.agreement[rows & ~verdicts.disagree].min()


def test_excess_is_the_lead_of_the_best_candidate(inputs, verdicts):
    """Over the best positive, by the teacher; a probable false negative where it is above zero."""
    for found, ranking in zip(verdicts.excess, inputs.rankings.to_pylist(), strict=True):
        assert found == pytest.approx(max(ranking["teacher_scores"]) - max(ranking["positive_scores"]), abs=1e-5)
    assert verdicts.false_negative.tolist() == (verdicts.excess > 0).tolist()
    assert 0 < verdicts.false_negative.sum() < len(verdicts.excess)


def test_ties_count_against_the_positive_and_empty_lists_are_no_trouble(inputs):
    """A positive stands behind its equals; a query without candidates or positives has neither excess nor agreement."""
    rankings, students = inputs.rankings.slice(0, 3).to_pylist(), inputs.student_lists.slice(0, 3).to_pylist()
    for row, (candidates, positives) in enumerate([([1.0, 0.5], [1.0]), ([], [1.0]), ([1.0], [])]):
        rankings[row] |= {"candidate_ids": ["c"] * len(candidates), "positive_ids": ["p"] * len(positives)}
        rankings[row] |= {"false_negative": [False] * len(candidates), "teacher_scores": candidates, "similarities": candidates}
        rankings[row] |= {"positive_scores": positives, "positive_similarities": positives}
        students[row] |= {"candidate_similarities": candidates, "positive_similarities": positives}
    tables = [
        table.from_pylist(rows, schema=table.schema)
        for table, rows in ((inputs.rankings, rankings), (inputs.student_lists, students))
    ]
    lists = lists_of(*tables)
    assert lists.places[TEACHER].tolist() == [1, 3, 2, 1, 1]
    found = verdicts_of(type(inputs)(**(vars(inputs) | {"rankings": tables[0]})), lists)
    assert found.excess.tolist() == pytest.approx([0.0, np.nan, np.nan], nan_ok=True)
    assert found.agreement.tolist() == pytest.approx([1.0, np.nan, np.nan], nan_ok=True)
    assert not found.false_negative.any()
