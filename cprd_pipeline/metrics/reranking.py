"""What a teacher makes of the head of another model's ranking: what distillation into its place could reach.

Shape suffixes: Q queries, T items of all lists together.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from cprd_pipeline.metrics.graded import positions_in_lists


@dataclass(frozen=True)
class ScoredLists:
    """Items that a model found and a teacher scored, list by list, in any order.

    Args:
        query_rows: Which query's list each item is in, 0 to Q - 1.
        item_rows: The item.
        similarities: The first model's similarity, higher first.
        teacher_scores: Raw logits, higher first.
        is_positive: Whether the item is a positive of the query.
    """

    query_rows: Int64[np.ndarray, " T"]
    item_rows: Int64[np.ndarray, " T"]
    similarities: Float32[np.ndarray, " T"]
    teacher_scores: Float32[np.ndarray, " T"]
    is_positive: Bool[np.ndarray, " T"]

    def take(self, chosen: Int64[np.ndarray, " K"]) -> "ScoredLists":
        """The chosen items, in the order given."""
        return ScoredLists(
            self.query_rows[chosen],
            self.item_rows[chosen],
            self.similarities[chosen],
            self.teacher_scores[chosen],
            self.is_positive[chosen],
        )


def rerank(lists: ScoredLists, depth: int) -> ScoredLists:
    """The first `depth` items of each list by similarity, in the teacher's order.

    In both orders ties count against the model: items that are no positives come first.

    Args:
        lists: For each query at least its `depth` most similar items, or all items.
        depth: How many the teacher reorders.
    """
    by_similarity = np.lexsort((lists.item_rows, lists.is_positive, -lists.similarities, lists.query_rows))
    head = lists.take(by_similarity[positions_in_lists(lists.query_rows[by_similarity]) < depth])
    return head.take(np.lexsort((head.item_rows, head.is_positive, -head.teacher_scores, head.query_rows)))


def reranked_ranks(reranked: ScoredLists, base_ranks_Q: Int64[np.ndarray, " Q"], depth: int) -> Int64[np.ndarray, " Q"]:
    """Rank of each query's best positive after reranking.

    Args:
        reranked: What `rerank` returned.
        base_ranks_Q: Ranks by the first model, kept where no positive is in the head: what follows the head stays as it was.
        depth: Length of the head.

    Returns:
        int64 [Q], from 1.
    """
    positions = positions_in_lists(reranked.query_rows)
    ranks_Q: Int64[np.ndarray, " Q"] = np.maximum(base_ranks_Q, depth + 1)
    np.minimum.at(ranks_Q, reranked.query_rows[reranked.is_positive], positions[reranked.is_positive] + 1)
    return ranks_Q
