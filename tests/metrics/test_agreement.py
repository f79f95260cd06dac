"""Kendall's tau over lists, and within bands of one of the orders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from cprd_pipeline.metrics.agreement import kendall_tau, kendall_tau_by_band


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_tau_is_the_mean_over_lists(lengths: list[int], seed: int) -> None:
    """Without ties it is SciPy's; lists with fewer than two items do not count."""
    draws = np.random.default_rng(seed)
    left, right = (draws.permutation(1000)[: sum(lengths)].astype(np.float32) for _ in range(2))
    ends = np.cumsum(lengths)
    taus = [kendalltau(left[e - n : e], right[e - n : e]).statistic for n, e in zip(lengths, ends, strict=True) if n > 1]
    found = kendall_tau(np.array(lengths, dtype=np.int64), left, right)
    assert found == (pytest.approx(np.mean(taus), abs=1e-6) if taus else None)


def test_a_tie_counts_nothing() -> None:
    """Two of three pairs agree, one is a tie: 2/3."""
    assert kendall_tau(np.array([3]), np.array([3.0, 2.0, 1.0]), np.array([2.0, 1.0, 1.0])) == pytest.approx(2 / 3, abs=1e-6)


def test_bands_are_cut_by_rank_in_the_first_order() -> None:
    """The best two agree, the next two are reversed, whatever the order of the rows; an empty band has no tau."""
    sorting, other = np.array([1.0, 4.0, 2.0, 3.0]), np.array([2.0, 9.0, 1.0, 8.0])
    assert kendall_tau_by_band(np.array([4]), sorting, other, (2, 4, 9)) == [1.0, -1.0, None]
