"""What papers report of the ranks of the right answers.

Shape suffixes: Q queries, N items, D embedding width.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64, Int64

from cprd_pipeline.metrics.positives import Positives
from cprd_pipeline.metrics.ranking import RankedPositives, rank_positives

RECALL_AT = (1, 5, 10)
_NDCG_AT = 10


def best_positive_ranks(
    queries_QD: Float32[np.ndarray, "Q D"], items_ND: Float32[np.ndarray, "N D"], positives: Positives
) -> Int64[np.ndarray, " Q"]:
    """Rank of each query's best positive among all items, without an N x N matrix in memory.

    Other positives of the query do not push it down. Ties count against the model: an item that is no positive and
    just as similar ranks before the positive, so a model that maps everything to one point gets the last ranks.

    Args:
        queries_QD: Embeddings of the queries, finite.
        items_ND: Embeddings of the items, finite.
        positives: At least one per query.

    Returns:
        int64 [Q], from 1 (best) to N. Equal for every block size and thread count.

    Raises:
        ValueError: A query has no positive.
    """
    if not positives.counts.all():
        raise ValueError(f"{int((positives.counts == 0).sum())} queries have no positive; a rank is undefined for them")
    return measure_queries(rank_positives(queries_QD, items_ND, positives)).rank


@dataclass(frozen=True)
class MeasuredQueries:
    """How well each query that has a positive was answered, all of its R positives counted.

    Args:
        rank: Of the first positive, from 1.
        average_precision: AP@R, in [0, 1]: precision at the rank of each positive among the first R, summed and divided
            by R (Musgrave et al. 2020, arXiv:2003.08505, section 3.2; its mean is MAP@R).
        r_precision: Share of positives among the first R, in [0, 1].
        ndcg: nDCG@10 with gain 1 for a positive and 0 for anything else, in [0, 1].
    """

    rank: Int64[np.ndarray, " Q"]
    average_precision: Float64[np.ndarray, " Q"]
    r_precision: Float64[np.ndarray, " Q"]
    ndcg: Float64[np.ndarray, " Q"]

    def values(self) -> dict[str, Float64[np.ndarray, " Q"]]:
        """Per-query values whose means are the figures that `summarise_queries` reports, in the same units."""
        shares = {f"r{k}": self.rank <= k for k in RECALL_AT}
        shares |= {"map_r": self.average_precision, "r_precision": self.r_precision, "binary_ndcg10": self.ndcg}
        percent = {name: 100.0 * share for name, share in shares.items()}
        return percent | {"mean_rank": self.rank.astype(np.float64), "mrr": 1.0 / self.rank}


def measure_queries(ranked: RankedPositives) -> MeasuredQueries:
    """Per-query results of one direction.

    Returns:
        One entry for each of `ranked.positives.answerable`, in that order; queries without a positive are left out.
    """
    counts = ranked.positives.counts
    return measure_ranks(ranked.ranks, counts[counts > 0])


def measure_ranks(ranks: Int64[np.ndarray, " P"], counts: Int64[np.ndarray, " Q"]) -> MeasuredQueries:
    """Per-query results from the ranks of the positives alone.

    Args:
        ranks: Of the positives, query by query, in any order within a query; from 1, distinct within a query.
        counts: Positives of each query, at least 1.
    """
    query = np.repeat(np.arange(len(counts)), counts)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    ranks = ranks[np.lexsort((ranks, query))]
    nth = np.arange(len(ranks)) - starts + 1
    within_r = ranks <= counts[query]

    def totals(of_positives: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.bincount(query, weights=of_positives, minlength=len(counts)).astype(np.float64)

    found = np.where(ranks <= _NDCG_AT, 1.0 / np.log2(ranks + 1.0), 0.0)
    best = np.where(nth <= _NDCG_AT, 1.0 / np.log2(nth + 1.0), 0.0)
    return MeasuredQueries(
        rank=ranks[nth == 1],
        average_precision=totals(within_r * nth / ranks) / counts,
        r_precision=totals(within_r.astype(np.float64)) / counts,
        ndcg=totals(found) / totals(best),
    )


def summarise_ranks(ranks: npt.NDArray[np.integer]) -> dict[str, float]:
    """What is reported of the ranks of one direction.

    Args:
        ranks: Rank of the best positive per query, from 1; not empty.

    Returns:
        `r1`, `r5`, `r10`: share of queries with a positive among the first K, in percent; `median_rank`, `mean_rank`:
        1 is best; `mrr`: mean of 1 / rank, in (0, 1].

    Raises:
        ValueError: There are no ranks.
    """
    if not len(ranks):
        raise ValueError("no ranks to summarise")
    recalls = {f"r{k}": 100.0 * float(np.mean(ranks <= k)) for k in RECALL_AT}
    return recalls | {
        "median_rank": float(np.median(ranks)),
        "mean_rank": float(np.mean(ranks)),
        "mrr": float(np.mean(1.0 / ranks)),
    }


def summarise_queries(measured: MeasuredQueries) -> dict[str, float]:
    """All figures of one direction.

    Args:
        measured: Not empty.

    Returns:
        What `summarise_ranks` gives, and the means `map_r`, `r_precision` and `binary_ndcg10` in percent.

    Raises:
        ValueError: There are no queries.
    """
    figures, values = summarise_ranks(measured.rank), measured.values()
    return figures | {name: float(np.mean(values[name])) for name in values if name not in figures}


def rsum(*directions: dict[str, float]) -> float:
    """Sum of R@1, R@5 and R@10 over the directions; at most 600 for two.

    Args:
        *directions: What `summarise_ranks` returned for each.
    """
    return sum(summary[f"r{k}"] for summary in directions for k in RECALL_AT)
