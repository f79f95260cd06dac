"""Agreement with graded human judgments: rank correlations of similarities with ratings.

Shape suffixes: N judgments, Q queries, S samples.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


@dataclass(frozen=True)
class KendallTaus:
    """Two ways to count ties, both in [-1, 1], higher is better.

    Args:
        b: tau-b: pairs that either side ties are left out of the scale.
        c: tau-c (Stuart's): scaled by what the side with fewer distinct values allows.
    """

    b: float
    c: float


def kendall_taus(similarities_N: Float64[np.ndarray, " N"], ratings_N: Float64[np.ndarray, " N"]) -> KendallTaus:
    """Kendall's rank correlation in O(N log N log R) time for R distinct ratings and O(N) memory.

    Where one side is constant both are 0 by our convention: a model that gives everything the same similarity agrees with
    nobody. SciPy's answer there is NaN.

    Args:
        similarities_N: Finite.
        ratings_N: Finite.

    Raises:
        ValueError: There are fewer than two judgments.
    Source: Kendall 1945, "The treatment of ties in ranking problems" (tau-b); Stuart 1953, "The estimation and comparison
    of strengths of association in contingency tables" (tau-c); the order of steps: Knight 1966.
    """
    count = len(ratings_N)
    if count < 2:
        raise ValueError(f"{count} judgments: a rank correlation needs two")
    x, y = _codes(similarities_N), _codes(ratings_N)
    classes = int(min(x.max(), y.max())) + 1
    pairs, tied_x, tied_y = count * (count - 1) // 2, _tied_pairs(x), _tied_pairs(y)
    tied_both = _tied_pairs(_codes(x * (y.max() + 1) + y))
    # Within equal similarities the ratings ascend, so only pairs that both sides order are counted as discordant.
    discordant = _inversions(y[np.lexsort((y, x))])
    concordant = pairs - tied_x - tied_y + tied_both - discordant
    if classes == 1:
        return KendallTaus(0.0, 0.0)
    scale_b = math.sqrt(pairs - tied_x) * math.sqrt(pairs - tied_y)
    scale_c = count**2 * (classes - 1) / (2 * classes)
    return KendallTaus((concordant - discordant) / scale_b, (concordant - discordant) / scale_c)


def sampled_spearman(
    similarities_N: Float64[np.ndarray, " N"],
    ratings_N: Float64[np.ndarray, " N"],
    queries_N: Int64[np.ndarray, " N"],
    samples: int,
    random: np.random.Generator,
) -> Float64[np.ndarray, " S"]:
    """Spearman correlations over samples that take one judgment each of a random half of the queries.

    Judgments of one query are correlated, so they must not be counted as if each were new evidence. A sample draws half of
    the queries without replacement and one of each one's judgments; ties get their mean rank. Where one side of a sample
    is constant its correlation is 0 by our convention.

    Args:
        similarities_N: Finite.
        ratings_N: Finite.
        queries_N: The query of each judgment, 0 to Q - 1, each with at least one.
        samples: S.
        random: Equal generators give equal results.

    Returns:
        One correlation a sample, in [-1, 1]; mean and standard deviation are what is reported.

    Raises:
        ValueError: There are fewer than four queries, so that half of them is no pair.
    Source: Parekh et al. 2021, "Crisscrossed Captions", arXiv:2004.15020 ("sampled Spearman bootstrap correlation").
    """
    by_query = np.argsort(queries_N, kind="stable")
    counts = np.bincount(queries_N)
    if len(counts) < 4:
        raise ValueError(f"{len(counts)} queries: the sampled correlation needs four")
    starts = np.cumsum(counts) - counts
    x, y = _codes(similarities_N), _codes(ratings_N)
    correlations = np.empty(samples)
    for sample in range(samples):
        chosen = random.choice(len(counts), len(counts) // 2, replace=False)
        drawn = by_query[starts[chosen] + random.integers(0, counts[chosen])]
        correlations[sample] = _pearson(_mean_ranks(x[drawn]), _mean_ranks(y[drawn]))
    return correlations


def _codes(values_N: Float64[np.ndarray, " N"] | Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Place of each value among the distinct values, from 0."""
    return np.unique(values_N, return_inverse=True)[1].astype(np.int64)


def _tied_pairs(codes_N: Int64[np.ndarray, " N"]) -> int:
    counts = np.bincount(codes_N)
    return int((counts * (counts - 1) // 2).sum())


def _inversions(codes_N: Int64[np.ndarray, " N"]) -> int:
    """Pairs whose first is larger than the second.

    Bit by bit from the highest: codes that agree in all higher bits stand together in their old order, and each 1 before a
    0 among them is an inversion.
    """
    total = 0
    for shift in reversed(range(int(codes_N.max()).bit_length())):
        higher, ones = codes_N >> (shift + 1), (codes_N >> shift) & 1
        before = np.cumsum(ones) - ones
        first = np.searchsorted(higher, higher, side="left")
        total += int((before - before[first])[ones == 0].sum())
        codes_N = codes_N[np.argsort(codes_N >> shift, kind="stable")]
    return total


def _mean_ranks(codes_N: Int64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """Rank from 1; equals share the mean of theirs."""
    counts = np.bincount(codes_N)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[codes_N])


def _pearson(x_N: Float64[np.ndarray, " N"], y_N: Float64[np.ndarray, " N"]) -> float:
    x, y = x_N - x_N.mean(), y_N - y_N.mean()
    scale = math.sqrt(x @ x) * math.sqrt(y @ y)
    return float(np.clip(x @ y / scale, -1.0, 1.0)) if scale else 0.0
