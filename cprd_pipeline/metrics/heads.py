"""The first k items of each query, the same whatever the block size.

Shape suffixes: Q queries, N items, D embedding width.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from cprd_pipeline.metrics.graded import positions_in_lists
from cprd_pipeline.metrics.positives import Positives
from cprd_pipeline.metrics.similarities import error_bound, pair_similarities, similarity_blocks


class Head(NamedTuple):
    """The head of one query's list.

    Args:
        items: Item rows, most similar first; int64 [at most k].
        similarities: float32, descending.
    """

    items: Int64[np.ndarray, " k"]
    similarities: Float32[np.ndarray, " k"]


def heads(
    queries_QD: Float32[np.ndarray, "Q D"], items_ND: Float32[np.ndarray, "N D"], k: int, positives: Positives | None = None
) -> Iterator[Head]:
    """One head a query, in their order.

    Args:
        queries_QD: Embeddings, finite.
        items_ND: Embeddings, finite.
        k: Length of a head, at least 1.
        positives: Right answers, which come last among equals: ties then count against the model, as in its ranks.
    """
    margin = error_bound(queries_QD, items_ND)
    depth = min(k, len(items_ND))
    for block, approximate in similarity_blocks(queries_QD, items_ND):
        threshold = np.partition(approximate, -depth, axis=1)[:, -depth]
        # Whoever might be among the first k, given the error of the fast similarities.
        rows, items = (found.astype(np.int64) for found in np.nonzero(approximate >= threshold[:, None] - 2 * margin))
        exact = pair_similarities(queries_QD, items_ND, rows + block.start, items)
        last = np.zeros(len(rows), dtype=np.bool_) if positives is None else positives.of_queries(block).contain(rows, items)
        order = np.lexsort((items, last, -exact, rows))
        kept = order[positions_in_lists(rows[order]) < depth].reshape(-1, depth)
        yield from (Head(items[own], exact[own]) for own in kept)
