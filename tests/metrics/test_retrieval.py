import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cprd_pipeline.metrics import similarities
from cprd_pipeline.metrics.positives import Positives
from cprd_pipeline.metrics.retrieval import best_positive_ranks, rsum, summarise_ranks


def slow_similarity(a, b):
    """Dot product of two float32 vectors as `math.fsum` of exact products, rounded to float32 by the caller."""
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def slow_rank(similarities, positives):
    """Rank of the best positive of one query; ties against the model."""
    best = max(similarities[p] for p in positives)
    return 1 + sum(1 for item, s in enumerate(similarities) if item not in positives and s >= best)


def positives_of(pairs, queries, items):
    """Positives from a list of pairs."""
    return Positives.from_pairs(np.array(pairs, dtype=np.int64).reshape(-1, 2), queries, items)


def vectors(*rows):
    """Embeddings by hand."""
    return np.array(rows, dtype=np.float32)


def test_ranks_by_hand_with_several_positives_per_query():
    """The best positive decides; the query's other positives do not push it down."""
    queries = vectors([1, 0], [0, 1])
    items = vectors([1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1])
    # Query 0 sees items in the order 0 1 2 3, query 1 in the order 3 2 1 0.
    positives = positives_of([(0, 2), (0, 1), (1, 0)], 2, 4)
    assert best_positive_ranks(queries, items, positives).tolist() == [2, 4]


def test_a_tie_counts_against_the_model():
    """An item as similar as the positive ranks before it; an equally similar positive does not."""
    queries = vectors([1, 0])
    items = vectors([0.5, 0.1], [0.5, 0.2], [0.5, 0.3], [0.1, 0])
    assert best_positive_ranks(queries, items, positives_of([(0, 0)], 1, 4)).tolist() == [3]
    assert best_positive_ranks(queries, items, positives_of([(0, 0), (0, 2)], 1, 4)).tolist() == [2]


def test_a_collapsed_model_gets_the_last_ranks():
    """A model that maps everything to one point looks worst, not best."""
    point = np.full((7, 5), 0.44, dtype=np.float32)
    ranks = best_positive_ranks(point[:3], point, positives_of([(0, 0), (1, 4), (2, 6), (2, 5)], 3, 7))
    assert ranks.tolist() == [7, 7, 6]


@pytest.mark.parametrize("block", [1, 7, 50, 2**22])
def test_equal_vectors_tie_in_every_block_size(monkeypatch, block):
    """Copies of the positive elsewhere in the table tie exactly, however the matrix product was cut."""
    random = np.random.default_rng(5)
    queries = random.normal(size=(23, 67)).astype(np.float32)
    items = random.normal(size=(41, 67)).astype(np.float32)
    items[20:] = items[:21]
    pairs = [(query, query % 20) for query in range(23)]
    expected = []
    for query, positive in pairs:
        row = [np.float32(slow_similarity(queries[query], item)) for item in items]
        expected.append(slow_rank(row, {positive}))
    monkeypatch.setattr(similarities, "_BLOCK_SIMILARITIES", block)
    assert best_positive_ranks(queries, items, positives_of(pairs, 23, 41)).tolist() == expected


@given(data=st.data())
def test_ranks_equal_a_slow_loop(data):
    """For small integers (many ties, exact arithmetic) the ranks are those of the definition."""
    queries, items, width = (data.draw(st.integers(1, high)) for high in (6, 9, 3))
    numbers = st.integers(-2, 2)
    q = np.array(data.draw(st.lists(numbers, min_size=queries * width, max_size=queries * width)), dtype=np.float32)
    x = np.array(data.draw(st.lists(numbers, min_size=items * width, max_size=items * width)), dtype=np.float32)
    q, x = q.reshape(queries, width), x.reshape(items, width)
    chosen = [data.draw(st.sets(st.integers(0, items - 1), min_size=1)) for _ in range(queries)]
    pairs = [(query, item) for query, positive in enumerate(chosen) for item in positive]
    expected = [slow_rank((x @ q[row]).tolist(), chosen[row]) for row in range(queries)]
    assert best_positive_ranks(q, x, positives_of(pairs, queries, items)).tolist() == expected


def test_a_query_without_positives_is_refused():
    """A rank is undefined without a positive, and is not made up."""
    with pytest.raises(ValueError, match="1 queries have no positive"):
        best_positive_ranks(vectors([1.0], [1.0]), vectors([1.0]), positives_of([(0, 0)], 2, 1))


def test_summary_by_hand():
    """Recalls are percentages of queries; MRR and mean rank are means; the median of an even count lies between."""
    summary = summarise_ranks(np.array([1, 2, 6, 11]))
    assert summary == pytest.approx(
        {"r1": 25.0, "r5": 50.0, "r10": 75.0, "median_rank": 4.0, "mean_rank": 5.0, "mrr": (1 + 1 / 2 + 1 / 6 + 1 / 11) / 4}
    )
    assert rsum(summary, summarise_ranks(np.array([1]))) == pytest.approx(450.0)


def test_no_ranks_are_refused():
    """An empty direction has no recall, rather than NaN."""
    with pytest.raises(ValueError, match="no ranks"):
        summarise_ranks(np.empty(0, dtype=np.int64))


def test_positives_group_and_look_up():
    """Repeated pairs count once, order does not matter, and membership is exact at both ends of the table."""
    positives = positives_of([(2, 3), (0, 1), (0, 0), (0, 1)], 3, 4)
    assert positives.offsets.tolist() == [0, 2, 2, 3]
    assert positives.items.tolist() == [0, 1, 3]
    assert positives.queries.tolist() == [0, 0, 2]
    rows = np.array([0, 0, 1, 2, 2])
    assert positives.contain(rows, np.array([0, 2, 1, 3, 0])).tolist() == [True, False, False, True, False]
    assert positives_of([], 1, 4).contain(np.array([0]), np.array([0])).tolist() == [False]


def test_memory_stays_in_blocks():
    """Ranks of 3000 x 30000 items never hold the 360 MB matrix of their similarities."""
    import tracemalloc

    random = np.random.default_rng(0)
    queries = random.normal(size=(1500, 4)).astype(np.float32)
    items = random.normal(size=(30_000, 4)).astype(np.float32)
    positives = Positives(np.arange(1501), random.integers(0, 30_000, 1500), 30_000)
    tracemalloc.start()
    best_positive_ranks(queries, items, positives)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 90e6, f"peak {peak / 1e6:.0f} MB; the whole matrix would be 180 MB"
