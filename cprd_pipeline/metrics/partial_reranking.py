"""The head of a model's lists in the order of a teacher that may not know all of it: what it never scored keeps its place.

So no item is missing from a head, and a teacher that knows little changes little. Shape suffixes: P positives of all queries,
T items of all heads together.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from cprd_pipeline.metrics.ranking import RankedPositives


@dataclass(frozen=True)
class ScoredHeads:
    """The first items of each query's list, query by query, in the model's order.

    Args:
        query_rows: Whose list the item is in, 0 to Q - 1.
        item_rows: The item.
        places: Its rank by the model, from 1.
        is_positive: Whether it is a positive of the query.
        is_scored: Whether the teacher scored it.
        teacher_scores: Raw logits, higher first; without meaning where it did not.
    """

    query_rows: Int64[np.ndarray, " T"]
    item_rows: Int64[np.ndarray, " T"]
    places: Int64[np.ndarray, " T"]
    is_positive: Bool[np.ndarray, " T"]
    is_scored: Bool[np.ndarray, " T"]
    teacher_scores: Float32[np.ndarray, " T"]

    @property
    def share_scored(self) -> float:
        """Share of the items, positives left out, that the teacher scored; 1 when there are none."""
        scored = self.is_scored[~self.is_positive]
        return float(scored.mean()) if len(scored) else 1.0

    @property
    def best_candidates(self) -> Int64[np.ndarray, " K"]:
        """Where in the arrays each query's most similar item stands that is no positive; queries without one are left out."""
        others = np.flatnonzero(~self.is_positive)
        return others[np.unique(self.query_rows[others], return_index=True)[1]]


def reranked_places(heads: ScoredHeads, merits: Float64[np.ndarray, " T"]) -> Int64[np.ndarray, " T"]:
    """Rank of each item when the teacher shares out, best first, the places of the items that it scored.

    Args:
        heads: The heads.
        merits: What each item is worth; of equal scores the lower merit comes first, so that ties count against the teacher.
    """
    scored = np.flatnonzero(heads.is_scored)
    keys = heads.item_rows, merits, -heads.teacher_scores, heads.query_rows
    best_first = scored[np.lexsort([key[scored] for key in keys])]
    places = heads.places.copy()
    places[best_first] = heads.places[scored]
    return places


def reranked_positives(heads: ScoredHeads, base: RankedPositives) -> RankedPositives:
    """Ranks of all positives after reranking: those behind the head keep theirs.

    Args:
        heads: The heads.
        base: Ranks by the model whose heads they are, ties against it.
    """
    positives = base.positives
    codes = positives.queries * positives.item_count + positives.items
    inside = np.flatnonzero(heads.is_positive)
    ranks = base.ranks.copy()
    found = np.searchsorted(codes, heads.query_rows[inside] * positives.item_count + heads.item_rows[inside])
    ranks[found] = reranked_places(heads, heads.is_positive.astype(np.float64))[inside]
    return RankedPositives(positives, ranks)
