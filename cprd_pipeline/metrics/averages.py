"""Figures of several evaluations as one: means over folds, mean and spread over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """One figure over several seeds.

    Args:
        mean: Over the seeds.
        deviation: Sample standard deviation (n - 1) of single seeds, not the error of the mean; None for one seed.
        seeds: How many.
    """

    mean: float
    deviation: float | None
    seeds: int


def mean_figures(summaries: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each figure over folds that count alike; of the medians too, as papers do for COCO 1K.

    Args:
        summaries: One for each fold, all with the same figures.

    Raises:
        ValueError: There are no summaries, or they hold different figures.
    """
    return {name: spread.mean for name, spread in spread_over_seeds(summaries).items()}


def spread_over_seeds(summaries: Sequence[dict[str, float]]) -> dict[str, Spread]:
    """Mean and spread of each figure.

    Args:
        summaries: One for each seed, all with the same figures.

    Raises:
        ValueError: There are no summaries, or they hold different figures.
    """
    if not summaries:
        raise ValueError("no summaries to average")
    names = list(summaries[0])
    if odd := [name for summary in summaries for name in set(summary) ^ set(names)]:
        raise ValueError(f"summaries hold different figures: {', '.join(sorted(set(odd)))} not in all of them")
    return {name: _spread([summary[name] for summary in summaries]) for name in names}


def _spread(values: list[float]) -> Spread:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), deviation, len(values))
