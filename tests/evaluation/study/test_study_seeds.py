"""Student's t over seeds, against published numbers."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.evaluation.study.seeds import central_probability, seed_difference, t_quantile


@pytest.mark.parametrize(
    ("confidence", "freedom", "quantile"),
    [(0.95, 1, 12.7062), (0.95, 2, 4.3027), (0.95, 4, 2.7764), (0.95, 9, 2.2622), (0.99, 3, 5.8409), (0.9, 30, 1.6973)],
)
def test_quantiles_are_those_of_the_tables(confidence, freedom, quantile):
    """Odd and even degrees of freedom, from one on."""
    assert t_quantile(confidence, freedom) == pytest.approx(quantile, abs=6e-5)


def test_many_degrees_of_freedom_are_nearly_normal():
    """The limit of Student's distribution."""
    assert central_probability(1.96, 4000) == pytest.approx(math.erf(1.96 / math.sqrt(2)), abs=1e-4)


def test_students_own_example():
    """The ten patients of 1908: additional hours of sleep by one drug against the other."""
    found = seed_difference([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    assert found.mean == pytest.approx(1.58)
    assert (found.low, found.high) == (pytest.approx(0.7001, abs=1e-4), pytest.approx(2.4599, abs=1e-4))
    assert found.p == pytest.approx(0.002833, abs=1e-6)


@pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (2.5, 0.0)])
def test_differences_without_any_spread(value, p):
    """Equal arms differ by nothing and mean nothing; a constant difference is beyond doubt."""
    found = seed_difference([value] * 3)
    assert found == (value, value, value, p)


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=2, max_size=8))
def test_the_interval_excludes_zero_exactly_when_p_is_below_alpha(differences):
    """Test and interval are the same statement; turning the sign turns the interval."""
    found, turned = seed_difference(differences), seed_difference([-value for value in differences])
    assert found.low <= found.mean <= found.high
    assert (turned.low, turned.high) == (pytest.approx(-found.high), pytest.approx(-found.low))
    if abs(found.p - 0.05) > 1e-6:
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
