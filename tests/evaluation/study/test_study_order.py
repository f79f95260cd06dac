"""Agreement of two orders within parts of lists, against plain loops."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.evaluation.study.bands import bands_of, valid_from_rest
from cprd_pipeline.evaluation.study.order import REACH, PairCounts, count_pairs


def by_loops(lengths, inside, left, right):
    """The same, pair by pair."""
    same, reverse, start = [], [], 0
    for length in lengths:
        near = [pair for pair in combinations(range(start, start + length), 2) if pair[1] - pair[0] <= REACH]
        signs = [(left[one] - left[other]) * (right[one] - right[other]) for one, other in near if inside[one] and inside[other]]
        same.append(sum(sign > 0 for sign in signs))
        reverse.append(sum(sign < 0 for sign in signs))
        start += length
    return same, reverse


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_equals_plain_loops(lengths, seed):
    """Lists of any length, ties in both orders, some items outside."""
    random = np.random.default_rng(seed)
    left, right = random.integers(0, 4, (2, sum(lengths))).astype(np.float32)
    inside = random.random(sum(lengths)) < 0.8
    found = count_pairs(np.array(lengths, dtype=np.int64), inside, left, right)
    assert (found.same.tolist(), found.reverse.tolist()) == by_loops(lengths, inside, left, right)


@pytest.mark.parametrize(("right", "gamma"), [([3, 2, 1], 1.0), ([1, 2, 3], -1.0), ([1, 1, 1], None), ([2, 1, 1], 1.0)])
def test_gamma(right, gamma):
    """1 for the same order, -1 for the reverse, nothing where all ties; a tie counts for neither side."""
    counts = count_pairs(np.array([3]), np.ones(3, dtype=bool), np.array([9.0, 8.0, 7.0]), np.array(right, dtype=np.float64))
    assert counts.gamma == gamma


def test_bands_are_ranks_of_each_list():
    """Valid ones are a prefix; ranges of ranks end with the longest list."""
    bands = bands_of(np.array([7, 2]), np.array([1, 2]))
    assert list(bands) == ["valid", "rest", "1-5", "6-7"]
    assert bands["valid"].tolist() == [True, *[False] * 6, True, True]
    assert (bands["rest"] == ~bands["valid"]).all()
    assert bands["1-5"].tolist() == [*[True] * 5, False, False, True, True]
    assert bands["6-7"].tolist() == [*[False] * 5, True, True, False, False]


def test_valid_against_the_rest():
    """The difference of the two shares, in the middle of its interval; nothing where one of them has no pairs."""
    random = np.random.default_rng(0)
    valid = PairCounts(random.integers(5, 9, 400), random.integers(0, 3, 400))
    rest = PairCounts(random.integers(10, 20, 400), random.integers(8, 18, 400))
    difference, low, high = valid_from_rest(valid, rest, 500)
    assert difference == pytest.approx(valid.gamma - rest.gamma, abs=1e-6)
    assert 0 < low < difference < high < 2
    nothing = PairCounts(np.zeros(400, dtype=np.int64), np.zeros(400, dtype=np.int64))
    assert valid_from_rest(valid, nothing, 500) is None
