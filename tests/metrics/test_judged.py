"""Rank correlations against hand-made numbers and SciPy."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.metrics.judged import kendall_taus, sampled_spearman


def numbers(*values):
    """float64 by hand."""
    return np.array(values, dtype=np.float64)


def test_taus_of_four_judgments_by_hand():
    """5 of the 6 pairs are ordered alike and one is not: without ties both taus are (5 - 1) / 6."""
    taus = kendall_taus(numbers(1, 2, 3, 4), numbers(1, 2, 4, 3))
    assert (taus.b, taus.c) == (pytest.approx(4 / 6), pytest.approx(4 / 6))


def test_taus_with_ties_by_hand():
    """Similarities 1 1 2 3 with ratings 1 2 2 2: 2 concordant, 1 pair tied on one side, 3 on the other, none discordant."""
    taus = kendall_taus(numbers(1, 1, 2, 3), numbers(1, 2, 2, 2))
    assert taus.b == pytest.approx(2 / math.sqrt(5 * 3))
    assert taus.c == pytest.approx(2 * 2 / (16 * (1 / 2)))


judgments = st.integers(2, 60).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-4, 4), min_size=n, max_size=n) for _ in range(2)])
)


@settings(deadline=None)
@given(judgments)
def test_taus_equal_scipy(sides):
    """Any ties on either side; where SciPy says NaN (a constant side) ours say 0."""
    x, y = (np.array(side, dtype=np.float64) for side in sides)
    taus = kendall_taus(x, y)
    for variant, ours in (("b", taus.b), ("c", taus.c)):
        theirs = scipy.stats.kendalltau(x, y, variant=variant).statistic
        assert ours == pytest.approx(0.0 if math.isnan(theirs) else theirs, abs=1e-12)


def test_taus_equal_scipy_at_the_size_of_flickr8k():
    """16,992 judgments with four grades, and with as many grades as judgments."""
    random = np.random.default_rng(0)
    x = random.normal(size=16_992).astype(np.float32).astype(np.float64)
    for y in (np.clip(np.round(x + random.normal(size=len(x)) + 2.5), 1, 4), x + random.normal(size=len(x))):
        taus = kendall_taus(x, y)
        assert taus.b == pytest.approx(scipy.stats.kendalltau(x, y, variant="b").statistic, abs=1e-12)
        assert taus.c == pytest.approx(scipy.stats.kendalltau(x, y, variant="c").statistic, abs=1e-12)


def test_one_judgment_has_no_tau():
    """Nothing to compare it with."""
    with pytest.raises(ValueError, match="1 judgments: a rank correlation needs two"):
        kendall_taus(numbers(1), numbers(1))


def slow_sampled(similarities, ratings, queries, samples, random):
    """The protocol as a loop around SciPy, drawing as the fast one does."""
    found = []
    members = [np.flatnonzero(queries == query) for query in range(queries.max() + 1)]
    for _ in range(samples):
        chosen = random.choice(len(members), len(members) // 2, replace=False)
        places = random.integers(0, [len(members[query]) for query in chosen])
        drawn = [members[query][place] for query, place in zip(chosen, places, strict=True)]
        found.append(scipy.stats.spearmanr(similarities[drawn], ratings[drawn]).statistic)
    return np.array(found)


def test_sampled_spearman_equals_a_loop_around_scipy():
    """Ties in both sides, queries with one to five judgments, in mixed order."""
    random = np.random.default_rng(3)
    queries = random.permutation(np.repeat(np.arange(60), 1 + np.arange(60) % 5))
    similarities = np.round(random.normal(size=len(queries)), 1)
    ratings = np.clip(np.round(2 * (similarities + random.normal(size=len(queries))) + 5) / 2, 0, 5)
    ours = sampled_spearman(similarities, ratings, queries, 50, np.random.default_rng(7))
    theirs = slow_sampled(similarities, ratings, queries, 50, np.random.default_rng(7))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert 0.2 < ours.mean() < 0.8
    assert ours.std() > 0


def test_each_sample_takes_half_of_the_queries_once():
    """One query with 1000 contradicting judgments counts no more than any other: the rest agree perfectly."""
    queries = np.concatenate([np.arange(20), np.full(1000, 20)])
    ratings = np.concatenate([np.arange(20.0), np.full(1000, 30.0)])
    similarities = np.concatenate([np.arange(20.0), np.full(1000, -1.0)])
    correlations = sampled_spearman(similarities, ratings, queries, 200, np.random.default_rng(0))
    # Ten ranks in order, or nine in order with the highest rating at the lowest similarity: 1 - 6 * 90 / (10 * 99).
    assert set(np.round(correlations, 9)) == {1.0, round(1 - 6 * 90 / 990, 9)}


def test_a_constant_model_correlates_with_nothing():
    """Similarities all alike give 0, not NaN, in every sample."""
    correlations = sampled_spearman(np.ones(8), np.arange(8.0), np.arange(8), 5, np.random.default_rng(0))
    assert correlations.tolist() == [0.0] * 5


def test_three_queries_are_too_few():
    """Half of them is one, and one judgment has no rank correlation."""
    with pytest.raises(ValueError, match="3 queries: the sampled correlation needs four"):
        sampled_spearman(np.ones(3), np.ones(3), np.arange(3), 5, np.random.default_rng(0))
