"""Ranks of the first right answer, and what papers report of them.

Shape suffixes: Q queries, N items, D embedding width.
"""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int64

from cprd_pipeline.metrics.positives import Positives
from cprd_pipeline.metrics.similarities import error_bound, pair_similarities, similarity_blocks

RECALL_AT = (1, 5, 10)


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
    if not len(positives):
        return np.empty(0, dtype=np.int64)
    best_Q = np.maximum.reduceat(
        pair_similarities(queries_QD, items_ND, positives.queries, positives.items), positives.offsets[:-1]
    )
    margin = error_bound(queries_QD, items_ND)
    ranks_Q = np.empty(len(queries_QD), dtype=np.int64)
    for block, similarities in similarity_blocks(queries_QD, items_ND):
        surely_ahead = similarities > best_Q[block, None] + margin
        ranks_Q[block] = 1 + np.count_nonzero(surely_ahead, axis=1)
        unsure = (similarities >= best_Q[block, None] - margin) & ~surely_ahead
        rows, items = (found.astype(np.int64) for found in np.nonzero(unsure))
        queries = rows + block.start
        ahead = pair_similarities(queries_QD, items_ND, queries, items) >= best_Q[queries]
        ahead &= ~positives.contain(queries, items)
        ranks_Q[block] += np.bincount(rows[ahead], minlength=len(similarities))
    return ranks_Q


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


def rsum(*directions: dict[str, float]) -> float:
    """Sum of R@1, R@5 and R@10 over the directions; at most 600 for two.

    Args:
        *directions: What `summarise_ranks` returned for each.
    """
    return sum(summary[f"r{k}"] for summary in directions for k in RECALL_AT)
