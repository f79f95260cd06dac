import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cprd_pipeline.metrics.reranking import ScoredLists, rerank, reranked_ranks


def slow_rerank(items, depth):
    """Item names after reranking; items are (name, similarity, score, is_positive), names break ties last."""
    head = sorted(items, key=lambda item: (-item[1], item[3], item[0]))[:depth]
    return [item[0] for item in sorted(head, key=lambda item: (-item[2], item[3], item[0]))]


def lists_of(rows):
    """Rows of (query, item, similarity, teacher score, positive) as arrays."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    types = (np.int64, np.int64, np.float32, np.float32, np.bool_)
    return ScoredLists(*(np.array(column, dtype=dtype) for column, dtype in zip(columns, types, strict=True)))


def test_rerank_by_hand():
    """Only the head is reordered; a positive below it keeps its place, one inside moves where the teacher puts it."""
    rows = [
        # query, item, similarity, teacher score, positive
        (0, 10, 0.9, -1.0, False),
        (0, 11, 0.8, 2.0, False),
        (0, 12, 0.7, 5.0, True),
        (0, 13, 0.6, 9.0, False),
        (1, 20, 0.9, -3.0, False),
        (1, 21, 0.8, 1.0, False),
        (1, 22, 0.7, 0.0, False),
        (1, 23, 0.2, 9.0, True),
    ]
    reranked = rerank(lists_of(rows), depth=3)
    assert reranked.item_rows.tolist() == [12, 11, 10, 21, 22, 20]
    assert reranked_ranks(reranked, np.array([3, 40]), depth=3).tolist() == [1, 40]


def test_ties_count_against_the_model_in_both_orders():
    """A positive as similar, or as well scored, as another item comes after it."""
    tied = [(0, 1, 0.5, 0.0, True), (0, 2, 0.5, 0.0, False), (0, 3, 0.5, 0.0, False)]
    assert rerank(lists_of(tied), depth=2).item_rows.tolist() == [2, 3]
    reranked = rerank(lists_of(tied), depth=3)
    assert reranked_ranks(reranked, np.array([3]), depth=3).tolist() == [3]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.booleans()), min_size=1, max_size=7), min_size=1, max_size=4
    ),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_rerank_equals_a_slow_loop(lists, depth, random):
    """Order and ranks are those of sorting each list alone."""
    rows = [(query, item, s, t, p) for query, items in enumerate(lists) for item, (s, t, p) in enumerate(items)]
    random.shuffle(rows)
    reranked = rerank(lists_of(rows), depth)
    base = np.full(len(lists), 100)
    ranks = reranked_ranks(reranked, base, depth)
    for query, items in enumerate(lists):
        expected = slow_rerank([(item, *values) for item, values in enumerate(items)], depth)
        assert reranked.item_rows[reranked.query_rows == query].tolist() == expected
        places = [place + 1 for place, item in enumerate(expected) if items[item][2]]
        assert ranks[query] == (places[0] if places else 100)
