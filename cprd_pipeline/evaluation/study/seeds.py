"""Differences between two arms that were trained over the same seeds: what another set of seeds might have given.

A seed gives both arms of a pair the same initial weights and batches, so that their difference varies less than they do.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# A difference of arms that are bit for bit the same is zero; nothing else is so near.
_NOTHING = 1e-12


class SeedDifference(NamedTuple):
    """The mean over seeds of a paired difference.

    Args:
        mean: Of the differences.
        low: Low end of the interval.
        high: High end of the interval.
        p: Of Student's t test that the mean is zero, two-sided, not corrected.
    """

    mean: float
    low: float
    high: float
    p: float


def seed_difference(differences: Sequence[float], confidence: float = 0.95) -> SeedDifference:
    """Mean, interval and test of paired differences, by Student's t with as many degrees of freedom as seeds but one.

    Args:
        differences: One a seed, at least two.
        confidence: Share of such intervals that hold the mean over all possible seeds, were the differences normal.

    Source: Student 1908, "The probable error of a mean".
    """
    count = len(differences)
    mean = float(np.mean(differences))
    error = float(np.std(differences, ddof=1)) / math.sqrt(count)
    reach = t_quantile(confidence, count - 1) * error
    if error < _NOTHING:
        return SeedDifference(mean, mean, mean, 1.0 if abs(mean) < _NOTHING else 0.0)
    return SeedDifference(mean, mean - reach, mean + reach, max(0.0, 1.0 - central_probability(abs(mean) / error, count - 1)))


def central_probability(t: float, freedom: int) -> float:
    """Probability that a variable with Student's distribution lies between -t and t.

    Args:
        t: Not negative.
        freedom: Degrees of freedom, a whole number of at least 1.

    Source: Abramowitz & Stegun 1964, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for step in range(odd + 2, freedom + 1, 2):
        total += term
        term *= (step - 1) / step * math.cos(angle) ** 2
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def t_quantile(confidence: float, freedom: int) -> float:
    """The t with `central_probability` of `confidence`.

    Args:
        confidence: In (0, 1).
        freedom: Degrees of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while central_probability(high, freedom) < confidence:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if central_probability(middle, freedom) < confidence else (low, middle)
    return high
