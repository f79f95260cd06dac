"""Is it real? Intervals, paired tests and a correction for many of them, from per-query results.

What is resampled is the image with everything that was asked about it: its own query and the queries of its captions, which
succeed and fail together. Drawing captions one by one would make intervals look narrower than they are.

Shape suffixes: Q queries, G groups (images), M metrics, B replicates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

# Numbers drawn at a time, so that memory does not grow with the replicates.
_BLOCK_DRAWS = 2**20
# Sums of the same differences in another order differ in their last bits, yet they are ties.
_TIE = 1e-12


@dataclass(frozen=True)
class GroupedQueries:
    """Per-query values of one direction, summed over the queries that are resampled together.

    Args:
        sums: Of the values of each metric in each group.
        sizes: Queries in each group; 0 where a group has none in this direction.
    """

    sums: Float64[np.ndarray, "G M"]
    sizes: Int64[np.ndarray, " G"]

    @classmethod
    def of(cls, values_QM: Float64[np.ndarray, "Q M"], groups: Int64[np.ndarray, " Q"], group_count: int) -> "GroupedQueries":
        """Sum the values of each group.

        Args:
            values_QM: Per-query values, one column a metric (or a model).
            groups: The group of each query, 0 to `group_count` - 1: for image queries the image, for captions their home
                image (`cprd_pipeline.metrics.folds.home_images`).
            group_count: G, the same for both directions.
        """
        columns = [np.bincount(groups, weights=column, minlength=group_count) for column in values_QM.T]
        sums = np.stack(columns, axis=1) if columns else np.empty((group_count, 0))
        return cls(sums, np.bincount(groups, minlength=group_count))

    @property
    def contributions(self) -> Float64[np.ndarray, "G M"]:
        """What each group adds to the mean of each metric over all queries."""
        return np.asarray(self.sums / self.sizes.sum())


@dataclass(frozen=True)
class Interval:
    """A figure and where it would lie in most test sets drawn as this one was."""

    estimate: float
    low: float
    high: float


def bootstrap_means(
    directions: Sequence[GroupedQueries], replicates: int, random: np.random.Generator
) -> Float64[np.ndarray, "B M_total"]:
    """Means over test sets made by drawing as many groups as there are, with replacement.

    All columns of all directions see the same draws: subtract two columns for a paired comparison, add columns of both
    directions for RSUM. Each direction is divided by its own number of drawn queries.

    Args:
        directions: The same groups in each; a group without a query in any direction is not drawn.
        replicates: B.
        random: Equal generators give each column equal results, whatever columns are beside it.

    Returns:
        The directions' columns side by side; NaN in a replicate that drew no query of the direction.
    """
    totals = np.concatenate([np.column_stack([one.sums, one.sizes]) for one in directions], axis=1)
    totals = totals[np.sum([one.sizes for one in directions], axis=0) > 0]
    drawn = np.concatenate([times @ totals for times in _times_drawn(len(totals), replicates, random)])
    ends = np.cumsum([one.sums.shape[1] + 1 for one in directions])
    parts = np.split(drawn, ends[:-1], axis=1)
    with np.errstate(invalid="ignore"):
        return np.concatenate([part[:, :-1] / part[:, -1:] for part in parts], axis=1)


def _times_drawn(groups: int, replicates: int, random: np.random.Generator) -> Iterator[Float64[np.ndarray, "b G"]]:
    """How often each group was drawn, some replicates at a time."""
    step = max(1, _BLOCK_DRAWS // max(1, groups))
    for start in range(0, replicates, step):
        count = min(step, replicates - start)
        places = random.integers(0, groups, (count, groups)) + np.arange(count)[:, None] * groups
        yield np.bincount(places.ravel(), minlength=count * groups).reshape(count, groups).astype(np.float64)


def percentile_interval(estimate: float, replicates_B: Float64[np.ndarray, " B"], confidence: float = 0.95) -> Interval:
    """The middle of the replicates.

    Args:
        estimate: The figure on the test set itself.
        replicates_B: The same figure on each resampled test set; NaN where it was undefined.
        confidence: Share of the replicates inside, in (0, 1).
    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3.
    """
    low, high = np.nanquantile(replicates_B, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))


def randomisation_p_values(
    differences_GM: Float64[np.ndarray, "G M"], flips: int, random: np.random.Generator
) -> Float64[np.ndarray, " M"]:
    """Two-sided paired randomisation test: would chance alone set the two models this far apart?

    If the models are alike, it is chance which of them gave which results on an image. Each flip swaps them on a random
    half of the images; p = (b + 1) / (n + 1), where b of n flips leave a difference at least as large.

    Args:
        differences_GM: What each group adds to the difference of two models, one column a figure: one model's
            `GroupedQueries.contributions` minus the other's, summed over columns and directions for RSUM.
        flips: n; no p is smaller than 1 / (n + 1).
        random: Equal generators give each column equal results, whatever columns are beside it.

    Returns:
        In (0, 1]; 1 where the models do not differ at all.
    Source: Smucker, Allan & Carterette 2007, "A comparison of statistical significance tests for information retrieval
    evaluation"; the + 1: Davison & Hinkley 1997, "Bootstrap Methods and their Application", section 4.3.
    """
    groups = len(differences_GM)
    observed = differences_GM.sum(axis=0)
    as_large = np.abs(observed) - _TIE * np.abs(differences_GM).sum(axis=0)
    reached = np.zeros(len(observed), dtype=np.int64)
    step = max(1, _BLOCK_DRAWS // max(1, groups))
    for start in range(0, flips, step):
        swapped = random.integers(0, 2, (min(step, flips - start), groups), dtype=np.uint8).astype(np.float64)
        reached += np.count_nonzero(np.abs(observed - 2.0 * (swapped @ differences_GM)) >= as_large, axis=0)
    return np.asarray((reached + 1) / (flips + 1))


def holm(p_values: Float64[np.ndarray, " K"]) -> Float64[np.ndarray, " K"]:
    """P-values corrected for K comparisons: calling those below alpha real errs once or more with probability alpha at most.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p_values, kind="stable")
    remaining = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * remaining), 1.0)
    return adjusted
