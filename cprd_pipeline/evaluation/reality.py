"""Is it real? Intervals of every figure, and tests between every two models, on the same queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cprd_pipeline.evaluation.outcomes import RECALLS, Outcome, Values
from cprd_pipeline.metrics.significance import (
    GroupedQueries,
    Interval,
    bootstrap_means,
    holm,
    percentile_interval,
    randomisation_p_values,
)

RSUM = "rsum"


@dataclass(frozen=True)
class Protocol:
    """How intervals and tests are made.

    Args:
        replicates: Resampled test sets, and random swaps, of each.
        seed: Of both.
        confidence: Share of the replicates inside an interval.
    """

    replicates: int
    seed: int
    confidence: float = 0.95


@dataclass(frozen=True)
class Difference:
    """One figure of two models.

    Args:
        figure: Its name.
        left: Mean of the first model.
        right: Mean of the second model.
        interval: Of right - left, over test sets drawn as this one was.
        p: Of the paired randomisation test, two-sided, not corrected.
    """

    figure: str
    left: float
    right: float
    interval: Interval
    p: float


def interval_of_mean(values: Values, protocol: Protocol) -> list[float] | None:
    """Low and high end of a mean's interval when the values are drawn anew one by one; None without values.

    Args:
        values: Independent ones, [N].
        protocol: How.
    """
    if not len(values):
        return None
    grouped = GroupedQueries.of(values[:, None], np.arange(len(values)), len(values))
    drawn = bootstrap_means([grouped], protocol.replicates, np.random.default_rng(protocol.seed))[:, 0]
    return [round(bound, 4) for bound in _bounds(percentile_interval(float("nan"), drawn, protocol.confidence))]


def intervals(outcome: Outcome, protocol: Protocol) -> dict[str, list[float]]:
    """Low and high end of each figure's interval, RSUM's too."""
    names, replicates = _replicates(outcome, outcome.group_count, protocol)
    return {
        name: [round(bound, 4) for bound in _bounds(percentile_interval(float("nan"), column, protocol.confidence))]
        for name, column in zip(names, replicates.T, strict=True)
    }


def compare(left: Outcome, right: Outcome, protocol: Protocol, figures: Sequence[str] = ()) -> list[Difference]:
    """Every figure of two models on the same queries, in the order of `figures`, or all.

    Args:
        left: One model.
        right: Another one, with the same queries.
        protocol: How.
        figures: Names; RSUM's is `rsum`.
    """
    count = max(left.group_count, right.group_count)
    names, ours = _replicates(left, count, protocol)
    theirs = _replicates(right, count, protocol)[1]
    means = [
        _with_rsum(model.figures, np.concatenate([one.contributions for one in model.grouped(count)], axis=1))
        for model in (left, right)
    ]
    p_values = randomisation_p_values(means[1] - means[0], protocol.replicates, np.random.default_rng(protocol.seed))
    found = {
        name: Difference(
            name,
            float(means[0][:, row].sum()),
            float(means[1][:, row].sum()),
            percentile_interval(float((means[1] - means[0])[:, row].sum()), theirs[:, row] - ours[:, row], protocol.confidence),
            float(p_values[row]),
        )
        for row, name in enumerate(names)
    }
    return [found[name] for name in figures or names]


def clear_winners(outcomes: Sequence[Outcome], protocol: Protocol, figures: Sequence[str], alpha: float = 0.05) -> dict[str, str]:
    """For each figure the model that is better than every other one beyond chance; figures without such a one are left out.

    All tests between every two models on all the figures are corrected together (Holm).

    Args:
        outcomes: Of models on the same queries.
        protocol: How.
        figures: Higher is better in each.
        alpha: Chance of one wrong call or more.
    """
    pairs = list(combinations(range(len(outcomes)), 2))
    tests = [(pair, one) for pair in pairs for one in compare(outcomes[pair[0]], outcomes[pair[1]], protocol, figures)]
    if not tests:
        return {}
    adjusted = holm(np.array([one.p for _, one in tests]))
    beaten: dict[str, dict[int, int]] = {figure: {} for figure in figures}
    for ((left, right), one), p in zip(tests, adjusted, strict=True):
        if p <= alpha and one.left != one.right:
            better = left if one.left > one.right else right
            beaten[one.figure][better] = beaten[one.figure].get(better, 0) + 1
    return {
        figure: outcomes[model].name
        for figure, counts in beaten.items()
        for model, count in counts.items()
        if count == len(outcomes) - 1
    }


def _replicates(outcome: Outcome, group_count: int, protocol: Protocol) -> tuple[list[str], Values]:
    """Names of the figures, RSUM last, and their means in each resampled test set, [B, M]."""
    drawn = bootstrap_means(outcome.grouped(group_count), protocol.replicates, np.random.default_rng(protocol.seed))
    return [*outcome.figures, RSUM], _with_rsum(outcome.figures, drawn)


def _with_rsum(figures: Sequence[str], columns: Values) -> Values:
    rows = [figures.index(name) for name in RECALLS]
    return np.column_stack([columns, columns[:, rows].sum(axis=1)])


def _bounds(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high
