"""Skewness, kurtosis and concentration, where they are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.evaluation.study.shapes import normal_shares, shape_of


def test_a_normal_sample():
    """No skewness, no excess, and the bins of the normal distribution."""
    shape = shape_of(np.random.default_rng(0).normal(3.0, 7.0, 400_000))
    assert shape.skewness == pytest.approx(0.0, abs=0.02)
    assert shape.excess_kurtosis == pytest.approx(0.0, abs=0.05)
    assert shape.shares == pytest.approx(normal_shares(), abs=0.003)
    assert shape.top_share == max(shape.shares)


def test_an_exponential_sample_is_skewed_and_concentrated():
    """Its skewness is 2, its excess kurtosis 6."""
    shape = shape_of(np.random.default_rng(0).exponential(size=1_000_000))
    assert (shape.skewness, shape.excess_kurtosis) == (pytest.approx(2.0, abs=0.05), pytest.approx(6.0, abs=0.5))
    assert shape.top_share > max(normal_shares())


def test_the_normal_shares_are_a_distribution():
    """They add up to one and mirror each other."""
    shares = normal_shares()
    assert sum(shares) == pytest.approx(1.0, abs=1e-4)
    assert shares == pytest.approx(shares[::-1], abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=3, max_size=40).filter(lambda values: len(set(values)) > 1))
def test_unit_and_origin_do_not_matter(values):
    """Every value is counted once, far ones in the outermost bins."""
    plain = np.array(values, dtype=np.float64)
    one, other = shape_of(plain), shape_of(4.0 * plain - 32.0)
    assert other.skewness == pytest.approx(one.skewness, abs=1e-9)
    assert other.excess_kurtosis == pytest.approx(one.excess_kurtosis, abs=1e-9)
    assert sum(one.shares) == pytest.approx(1.0, abs=1e-4)
