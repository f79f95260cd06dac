"""The first k items of each query are those of the whole sorted list."""

from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.metrics.heads import heads
from cprd_pipeline.metrics.similarities import pair_similarities
from tests.metrics.slow import positives_of


@given(st.integers(1, 8), st.integers(1, 12), st.integers(1, 15), st.integers(0, 50))
@settings(max_examples=80, deadline=None)
def test_heads_are_those_of_the_full_order(queries: int, items: int, k: int, seed: int) -> None:
    """Ties, of which equal vectors make many, by row; never more than there are items."""
    draws = np.random.default_rng(seed)
    left, right = (draws.integers(-1, 2, (count, 3)).astype(np.float32) for count in (queries, items))
    found = list(heads(left, right, k))
    assert len(found) == queries
    for query, head in enumerate(found):
        exact = pair_similarities(left, right, np.full(items, query), np.arange(items))
        order = sorted(range(items), key=lambda row: (-exact[row], row))[:k]
        assert head.items.tolist() == order
        assert head.similarities.tolist() == exact[order].tolist()


@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 8))), st.integers(1, 9), st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_positives_come_last_among_equals(pairs: set[tuple[int, int]], k: int, seed: int) -> None:
    """Those of the own query, whatever block of queries it is in."""
    draws = np.random.default_rng(seed)
    left, right = (draws.integers(-1, 2, (count, 2)).astype(np.float32) for count in (5, 9))
    with patch("cprd_pipeline.metrics.similarities._BLOCK_SIMILARITIES", 2 * 9):
        found = list(heads(left, right, k, positives_of(sorted(pairs), 5, 9)))
    for query, head in enumerate(found):
        exact = left[query] @ right.T
        order = sorted(range(9), key=lambda row: (-exact[row], (query, row) in pairs, row))[:k]
        assert head.items.tolist() == order
