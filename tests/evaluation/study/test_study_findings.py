"""Verdicts follow from the numbers alone, whichever way these fall."""

from dataclasses import replace

import numpy as np
import pytest

from cprd_pipeline.evaluation.study.comparison import Comparison
from cprd_pipeline.evaluation.study.findings import findings_of
from cprd_pipeline.evaluation.study.settings import StudySettings
from cprd_pipeline.evaluation.study.shapes import shape_of
from cprd_pipeline.evaluation.study.text import number, signed, spread

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
SETTINGS = StudySettings.model_validate(
    {
        "seeds": [0, 1],
        "arms": {"a": {"label": "A"}, "b": {"label": "B"}},
        "reference": "b",
        "claims": [{"text": "a is better", "better": "a", "worse": "b"}],
    }
)
CLEAR = Comparison("a", "b", "rsum", [4.0, 6.0], 5.0, 1.25, 8.75, [1.0, 9.0], 0.01)
RANDOM = np.random.default_rng(0)
NORMAL, SKEWED = shape_of(RANDOM.normal(size=5000)), shape_of(RANDOM.exponential(size=5000))


def verdicts(comparison=CLEAR, shapes=(SKEWED, NORMAL), truth=None):
    """Of all findings, in order."""
    named = dict(zip(("teacher", "student"), shapes, strict=True))
    return findings_of(SETTINGS, [comparison], named, {"truth": truth})


@pytest.mark.parametrize(
    ("comparison", "verdict", "numbers"),
    [
        (CLEAR, "shows", f"A {MINUS} B: RSUM +5.0 [+1.2, +8.8], p 0.010"),
        (replace(CLEAR, p=0.2), "does not show", "p 0.200"),
        (replace(CLEAR, p=0.0001, difference=-5.0), "the opposite shows", f"RSUM {MINUS}5.0 [+1.2, +8.8], p < 0.001"),
        (replace(CLEAR, less="c"), "not measured", "an arm has no gradient cosine"),
    ],
)
def test_a_claim_shows_when_its_difference_is_clear_and_of_its_sign(comparison, verdict, numbers):
    """By the corrected p; a clear difference of the other sign is said as such."""
    found = verdicts(comparison)[-1]
    assert (found["text"], found["verdict"]) == ("a is better", verdict)
    assert numbers in found["numbers"]


def test_concentration_shows_when_the_teacher_is_the_less_normal_one():
    """And not the other way round."""
    assert verdicts()[0]["verdict"] == "shows"
    assert verdicts(shapes=(NORMAL, SKEWED))[0]["verdict"] == "does not show"


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        ([0.2, 0.1, 0.3], "shows"),
        ([0.2, -0.1, 0.5], "does not show"),
        ([-0.2, -0.3, -0.1], "the opposite shows"),
        (None, "not measured"),
    ],
)
def test_the_truth_of_the_order_shows_by_its_interval(difference, verdict):
    """Valid hard negatives against the rest."""
    truth = {"bands": {"valid": 0.5, "rest": 0.3}, "valid_from_rest": difference}
    assert verdicts(truth=truth)[1]["verdict"] == verdict


def test_numbers_have_a_true_minus_and_no_negative_zero():
    """As they are read, not as a machine writes them."""
    assert (number(-0.004, 2), number(-1.25, 1), number(None, 2)) == ("0.00", f"{MINUS}1.2", DASH)
    assert (signed(-0.004, 2), signed(2.0, 1)) == ("+0.00", "+2.0")
    assert (spread([1.0, None, 3.0], 1), spread([None], 1), spread([-2.0], 1)) == ("2.0 ± 1.4", DASH, f"{MINUS}2.0")
