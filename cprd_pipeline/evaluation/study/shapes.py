"""The shape of a distribution: how far from normal, how concentrated."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

EDGES = np.linspace(-5.0, 5.0, 51)
"""Edges of the bins, in standard deviations from the mean; what lies outside counts in the outermost bins."""


@dataclass(frozen=True)
class Shape:
    """Of values brought to mean 0 and standard deviation 1.

    Args:
        skewness: 0 for a symmetric distribution.
        excess_kurtosis: 0 for a normal one; higher: a sharper peak and longer tails.
        top_share: What the fullest bin holds, 0 to 1.
        shares: What each bin holds, 0 to 1.
    """

    skewness: float
    excess_kurtosis: float
    top_share: float
    shares: list[float]


def shape_of(values: Float[np.ndarray, " N"]) -> Shape:
    """Standardise and measure.

    Args:
        values: Two different ones at least, finite.
    """
    centred = values.astype(np.float64) - values.mean(dtype=np.float64)
    standard = centred / centred.std()
    counts = np.histogram(np.clip(standard, EDGES[0], EDGES[-1]), EDGES)[0]
    shares = [round(float(share), 6) for share in counts / len(values)]
    return Shape(float((standard**3).mean()), float((standard**4).mean() - 3.0), max(shares), shares)


def normal_shares() -> list[float]:
    """What each bin would hold of a normal distribution."""
    below = [(1 + math.erf(edge / math.sqrt(2))) / 2 for edge in EDGES]
    below[0], below[-1] = 0.0, 1.0
    return [round(high - low, 6) for low, high in itertools.pairwise(below)]
