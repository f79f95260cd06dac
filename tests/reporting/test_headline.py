"""The headline: a share of the way to the teacher is told only where there is such a way."""

import re

import numpy as np
import pyarrow as pa
import pytest

from cprd_pipeline.reporting.headline import headline, rsum_gap
from cprd_pipeline.reporting.inputs import read_inputs
from tests.reporting.conftest import settings_of


def results_of(ranks_i2t, ranks_t2i):
    """Results of queries, one image a group and as many captions as there are images."""
    directions = ["i2t"] * len(ranks_i2t) + ["t2i"] * len(ranks_t2i)
    groups = [*range(len(ranks_i2t)), *range(len(ranks_t2i))]
    return pa.table({"direction": directions, "group": pa.array(groups, pa.int32()), "rank": [*ranks_i2t, *ranks_t2i]})


@pytest.fixture
def inputs(made):
    """Of the small run, to be changed."""
    return read_inputs(settings_of(made))


def told(inputs, base, student, teacher, base_ranks, teacher_ranks):
    """The headline's text with other figures and other results of queries."""
    inputs.metrics.update({name: {"rsum": rsum} for name, rsum in (("base", base), ("cprd", student), ("teacher", teacher))})
    inputs.queries.update(base=results_of(base_ranks, base_ranks), teacher=results_of(teacher_ranks, teacher_ranks))
    return re.sub(r"<[^>]*>", " ", headline(inputs))


FAR, NEAR, SAME = [200] * 60, [1] * 60, [1, 200] * 30
ELSEWHERE = [200, 1] * 30


def test_the_share_is_told_where_the_teacher_is_clearly_ahead(inputs):
    """Also a negative one, of a student that lost."""
    assert "50%  of the way to the teacher (500.0)" in told(inputs, 100.0, 300.0, 500.0, FAR, NEAR)
    assert "\N{MINUS SIGN}10%  of the way" in told(inputs, 100.0, 60.0, 500.0, FAR, NEAR)


@pytest.mark.parametrize(
    ("figures", "ranks", "words"),
    [
        (
            (25.0, 37.4, 25.6),
            (SAME, ELSEWHERE),
            r"the teacher's reranking of the lists of base \(25\.6\) differs from base by no more",
        ),
        ((500.0, 510.0, 100.0), (NEAR, FAR), r"\(100\.0\) is worse than base itself: there is no way to go"),
        ((100.0, 510.0, 500.0), (FAR, NEAR), r"Here cprd stands above the teacher's reranking of the lists of base \(500\.0\)"),
    ],
)
def test_otherwise_words_say_why_not(inputs, figures, ranks, words):
    """No share of a gap that another test set would turn round, that is none, or that is closed."""
    text = told(inputs, *figures, *ranks).replace("&#x27;", "'")
    assert "%" not in text
    assert re.search(words, text)


def test_the_gap_is_paired_by_image():
    """Two models that fail on the same images differ by nothing at all, however wide their own intervals are."""
    ranks = np.random.default_rng(0).integers(1, 20, 50).tolist()
    gap = rsum_gap(results_of(ranks, ranks), results_of(ranks, ranks))
    assert (gap.estimate, gap.low, gap.high) == (0, 0, 0)
    better = rsum_gap(results_of(FAR, FAR), results_of([7] * 60, [3] * 60))
    assert (better.estimate, better.low, better.high) == pytest.approx((300, 300, 300))
