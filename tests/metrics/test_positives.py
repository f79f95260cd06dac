import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.slow import positives_of


def pairs_of(positives):
    """The pairs as a set."""
    return set(zip(positives.queries.tolist(), positives.items.tolist(), strict=True))


def test_positives_group_and_look_up():
    """Repeated pairs count once, order does not matter, and membership is exact at both ends of the table."""
    positives = positives_of([(2, 3), (0, 1), (0, 0), (0, 1)], 3, 4)
    assert positives.offsets.tolist() == [0, 2, 2, 3]
    assert positives.items.tolist() == [0, 1, 3]
    assert positives.queries.tolist() == [0, 0, 2]
    assert positives.answerable.tolist() == [0, 2]
    rows = np.array([0, 0, 1, 2, 2])
    assert positives.contain(rows, np.array([0, 2, 1, 3, 0])).tolist() == [True, False, False, True, False]
    assert positives_of([], 1, 4).contain(np.array([0]), np.array([0])).tolist() == [False]


@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 6))), st.sets(st.integers(0, 4)), st.sets(st.integers(0, 6)))
@settings(deadline=None)
def test_transposed_and_part_equal_set_operations(pairs, queries, items):
    """Transposing swaps the sides of every pair; a part holds the pairs with both sides in it, renumbered."""
    positives = positives_of(sorted(pairs), 5, 7)
    transposed = positives.transposed()
    assert (pairs_of(transposed), len(transposed), transposed.item_count) == ({(i, q) for q, i in pairs}, 7, 5)
    query_rows, item_rows = (np.array(sorted(rows), dtype=np.int64) for rows in (queries, items))
    part = positives.part(query_rows, item_rows)
    assert {(int(query_rows[q]), int(item_rows[i])) for q, i in pairs_of(part)} == {
        (q, i) for q, i in pairs if q in queries and i in items
    }
    assert (len(part), part.item_count) == (len(queries), len(items))
