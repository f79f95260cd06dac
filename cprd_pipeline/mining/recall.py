"""How much of the exact result an approximate search finds."""

import numpy as np

from cprd_pipeline.mining.search import Excluded, Search, TopItems, Vectors


def recall(search: Search, exact: Search, queries: Vectors, k: int, excluded: Excluded) -> float:
    """Share of the exact top k that the search finds, over all queries together.

    Of equally similar items another one counts as not found, so that the share is a lower bound.

    Args:
        search: The one to judge.
        exact: An exact search among the same vectors.
        queries: A sample of the queries, float32 [Q, D].
        k: Wanted items.
        excluded: What each of these queries must not find.

    Returns:
        In [0, 1], higher is better; 1 where there is nothing to find.
    """
    wanted, found = _codes(exact.top(queries, k, excluded), len(exact)), _codes(search.top(queries, k, excluded), len(exact))
    return float(np.isin(wanted, found).mean()) if len(wanted) else 1.0


def _codes(top: TopItems, items: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """One number a (query, item)."""
    present = np.arange(top.positions.shape[1]) < top.counts[:, None]
    return (np.arange(len(top.counts))[:, None] * items + top.positions)[present]
