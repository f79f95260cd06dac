import tracemalloc
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.metrics import significance
from cprd_pipeline.metrics.significance import (
    GroupedQueries,
    Interval,
    bootstrap_means,
    holm,
    percentile_interval,
    randomisation_p_values,
)


def grouped(values, groups, count):
    """Groups of hand-written queries."""
    return GroupedQueries.of(np.array(values, dtype=np.float64), np.array(groups), count)


def column(values):
    """Queries that are their own groups, of one metric."""
    return grouped(np.array(values)[:, None], np.arange(len(values)), len(values))


def test_groups_by_hand():
    """Values of a group's queries are summed; contributions of all groups add up to the means."""
    queries = grouped([[1, 10], [2, 20], [6, 60]], [2, 0, 2], 3)
    assert queries.sums.tolist() == [[2, 20], [0, 0], [7, 70]]
    assert queries.sizes.tolist() == [1, 0, 2]
    assert queries.contributions.sum(axis=0).tolist() == pytest.approx([3, 30])


@pytest.mark.parametrize("block", [1, 50, 2**20])
def test_replicates_are_means_over_drawn_queries(monkeypatch, block):
    """Every replicate is the plain mean over all queries of the drawn images, in each direction, for every block size."""
    monkeypatch.setattr(significance, "_BLOCK_DRAWS", block)
    random = np.random.default_rng(0)
    images, captions, home = random.random((8, 2)), random.random((20, 1)), random.integers(0, 8, 20)
    sides = [grouped(images, np.arange(8), 8), grouped(captions, home, 8)]
    found = bootstrap_means(sides, 30, np.random.default_rng(7))
    for replicate, drawn in zip(found, np.random.default_rng(7).integers(0, 8, (30, 8)), strict=True):
        asked = np.concatenate([captions[home == image] for image in drawn])
        assert replicate.tolist() == pytest.approx([*images[drawn].mean(axis=0), *asked.mean(axis=0)])


def test_groups_that_asked_nothing_are_not_drawn():
    """An image without a positive neither widens the intervals nor changes the draws."""
    with_silent = grouped([[1.0], [5.0], [2.0]], [0, 2, 3], 5)
    found = bootstrap_means([with_silent], 50, np.random.default_rng(1))
    assert (found == bootstrap_means([column([1.0, 5.0, 2.0])], 50, np.random.default_rng(1))).all()


def test_a_replicate_without_a_query_is_passed_over():
    """Where no drawn image has a caption query there is no mean, and the interval is that of the other replicates."""
    sides = [column([1.0, 2.0]), grouped([[3.0]], [0], 2)]
    replicates = bootstrap_means(sides, 200, np.random.default_rng(2))[:, 1]
    assert np.isnan(replicates).any()
    assert percentile_interval(3.0, replicates) == Interval(3.0, 3.0, 3.0)


def test_percentile_interval_by_hand():
    """Of 0 to 100 the middle nine tenths run from 5 to 95."""
    interval = percentile_interval(42.0, np.arange(101.0), confidence=0.9)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((42.0, 5.0, 95.0))


def share_of_intervals_that_cover(by_image):
    """Over simulated test sets whose queries agree within an image: how often the interval holds the true mean, 0."""
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        values = np.repeat(random.normal(size=60), 5) + 0.5 * random.normal(size=300)
        groups = np.arange(300) // 5 if by_image else np.arange(300)
        queries = grouped(values[:, None], groups, 300)
        interval = percentile_interval(0.0, bootstrap_means([queries], 300, random)[:, 0])
        covered += interval.low <= 0 <= interval.high
    return covered / 300


def test_intervals_cover_when_images_are_drawn_and_not_when_captions_are():
    """About 95 % of the intervals hold the truth; had captions been drawn one by one, far fewer would."""
    assert 0.90 <= share_of_intervals_that_cover(by_image=True) <= 0.98
    assert share_of_intervals_that_cover(by_image=False) < 0.75


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8))
@settings(deadline=None, max_examples=30)
def test_p_value_equals_all_swaps_enumerated(differences):
    """The share of all 2^n swaps that leave as large a difference, within the error of 20,000 random ones; ties count."""
    sums = [abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
            for signs in product((-1, 1), repeat=len(differences))]  # fmt: skip
    expected = np.mean(np.array(sums) >= abs(sum(differences)))
    # Tenths are not exact in binary: ties must survive rounding.
    found = randomisation_p_values(np.array(differences, dtype=np.float64)[:, None] / 10, 20_000, np.random.default_rng(0))
    assert found.tolist() == [pytest.approx(expected, abs=0.02)]


def test_p_values_at_both_ends():
    """Equal models give exactly 1; a difference that no flip reaches gives 1 / (n + 1), never 0; columns stand alone."""
    differences = np.stack([np.zeros(64), np.ones(64), np.resize([1.0, -1.0], 64)], axis=1)
    p_values = randomisation_p_values(differences, 999, np.random.default_rng(0))
    assert p_values.tolist() == [1.0, 0.001, 1.0]
    assert randomisation_p_values(differences[:, 1:2], 999, np.random.default_rng(0)).tolist() == [0.001]


def test_alike_models_seldom_look_different():
    """Without a true difference about one p-value in twenty lies below 0.05; with one, most do."""
    random = np.random.default_rng(4)
    noise = random.normal(size=(80, 400))
    assert 0.02 <= np.mean(randomisation_p_values(noise, 500, random) < 0.05) <= 0.08
    assert np.mean(randomisation_p_values(noise + 0.5, 500, random) < 0.05) > 0.9


def test_holm_by_hand():
    """Four comparisons: the smallest counts four times, the next three times, and the order is kept."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]


def test_memory_does_not_grow_with_the_replicates():
    """4,000 replicates and flips of 5,000 images never hold the 160 MB of their weights."""
    values = column(np.random.default_rng(0).random(5000))
    tracemalloc.start()
    bootstrap_means([values], 4000, np.random.default_rng(0))
    randomisation_p_values(values.contributions, 4000, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6, f"peak {peak / 1e6:.0f} MB"
