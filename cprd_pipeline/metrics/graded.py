"""nDCG with graded relevance: how good the whole head of a list is, beyond the annotated positives.

Shape suffixes: Q queries, N items, D embedding width, T items of all lists together.
"""

import numpy as np
from jaxtyping import Float32, Float64, Int64

from cprd_pipeline.metrics.similarities import error_bound, pair_similarities, similarity_blocks

_GRADES = 4.0


def gain(relevance: Float32[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Gain of a graded relevance r: (2^(4 r) - 1) / 15, from 0 for r = 0 to 1 for r = 1.

    This is the usual 2^grade - 1 with the share r spread over grades 0 to 4 and divided by the largest, so that a half
    right answer (gain 0.2) is worth far less than half a right one.

    Args:
        relevance: In [0, 1].
    Source: Burges et al. 2005, "Learning to rank using gradient descent" (the exponential gain); the scale is ours.
    """
    return np.asarray((np.exp2(_GRADES * relevance.astype(np.float64)) - 1.0) / (2.0**_GRADES - 1.0))


def ndcg_of_embeddings(
    queries_QD: Float32[np.ndarray, "Q D"],
    items_ND: Float32[np.ndarray, "N D"],
    relevance_QN: Float32[np.ndarray, "Q N"],
    k: int = 10,
) -> Float64[np.ndarray, " Q"]:
    """nDCG@k of ranking all items by similarity.

    Args:
        queries_QD: Embeddings of the queries, finite.
        items_ND: Embeddings of the items, finite.
        relevance_QN: Relevance in [0, 1] of each item for each query; read block by block, so it may be memory-mapped.
        k: Length of the head that counts.

    Returns:
        In [0, 1], higher is better. Ties count against the model (the less relevant item first).
    """
    margin = error_bound(queries_QD, items_ND)
    depth = min(k, len(items_ND))
    result_Q = np.zeros(len(queries_QD))
    for block, similarities in similarity_blocks(queries_QD, items_ND):
        threshold = np.partition(similarities, -depth, axis=1)[:, -depth]
        # Whoever might be among the first k, given the error of the fast similarities.
        rows, items = (found.astype(np.int64) for found in np.nonzero(similarities >= threshold[:, None] - 2 * margin))
        exact = pair_similarities(queries_QD, items_ND, rows + block.start, items)
        gains = gain(relevance_QN[block])
        result_Q[block] = ndcg_of_lists(rows, exact, gains[rows, items], ideal_dcg(gains, k), k)
    return result_Q


def ndcg_of_lists(
    list_rows: Int64[np.ndarray, " T"],
    keys: Float32[np.ndarray, " T"],
    gains: Float64[np.ndarray, " T"],
    ideal_Q: Float64[np.ndarray, " Q"],
    k: int = 10,
) -> Float64[np.ndarray, " Q"]:
    """nDCG@k of lists given item by item.

    Args:
        list_rows: The list that each item belongs to, 0 to Q - 1, in any order.
        keys: What the list is sorted by, higher first; among equals the lower gain comes first.
        gains: Gain of each item.
        ideal_Q: Best DCG that each query could have; where it is 0 (nothing is relevant) the result is 0, as in trec_eval.
        k: Length of the head that counts.
    """
    order = np.lexsort((gains, -keys, list_rows))
    positions = positions_in_lists(list_rows[order])
    head = positions < k
    discounted = gains[order][head] / np.log2(positions[head] + 2.0)
    dcg_Q = np.bincount(list_rows[order][head], weights=discounted, minlength=len(ideal_Q))
    return np.asarray(np.divide(dcg_Q, ideal_Q, out=np.zeros_like(dcg_Q), where=ideal_Q > 0))


def ideal_dcg(gains_QN: Float64[np.ndarray, "Q N"], k: int = 10) -> Float64[np.ndarray, " Q"]:
    """DCG@k of each query's items in the best possible order."""
    depth = min(k, gains_QN.shape[1])
    head = -np.sort(-np.partition(gains_QN, -depth, axis=1)[:, -depth:], axis=1)
    return np.asarray((head / np.log2(np.arange(depth) + 2.0)).sum(axis=1))


def positions_in_lists(sorted_rows: Int64[np.ndarray, " T"]) -> Int64[np.ndarray, " T"]:
    """Place of each item within its list, from 0, when items are sorted by list."""
    starts = np.searchsorted(sorted_rows, sorted_rows, side="left")
    return np.asarray(np.arange(len(sorted_rows)) - starts)
