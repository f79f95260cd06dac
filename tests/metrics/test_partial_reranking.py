"""Heads that a teacher scored in part, by hand and against sorting each list alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.metrics.heads import heads
from cprd_pipeline.metrics.partial_reranking import ScoredHeads, reranked_places, reranked_positives
from cprd_pipeline.metrics.ranking import rank_positives
from tests.metrics.slow import positives_of


def heads_of(rows):
    """Rows of (query, item, place, positive, scored, teacher score) as arrays."""
    types = (np.int64, np.int64, np.int64, np.bool_, np.bool_, np.float32)
    return ScoredHeads(*(np.array(column, dtype=dtype) for column, dtype in zip(zip(*rows, strict=True), types, strict=True)))


def test_what_was_not_scored_keeps_its_place():
    """The others share out the places that are left; equal scores put the lower merit first."""
    found = heads_of(
        [
            (0, 10, 1, False, True, -1.0),
            (0, 11, 2, False, False, 99.0),
            (0, 12, 3, True, True, 5.0),
            (1, 20, 1, True, True, 2.0),
            (1, 21, 2, False, True, 2.0),
        ]
    )
    assert reranked_places(found, found.is_positive.astype(np.float64)).tolist() == [3, 2, 1, 2, 1]
    assert reranked_places(found, np.array([0.0, 0.0, 0.0, 0.1, 0.2])).tolist() == [3, 2, 1, 1, 2]
    assert found.share_scored == pytest.approx(2 / 3)
    assert found.best_candidates.tolist() == [0, 4]


def test_heads_of_nothing_but_positives_are_whole():
    """Nothing that could be missing is."""
    found = heads_of([(0, 10, 1, True, True, 1.0)])
    assert (found.share_scored, found.best_candidates.tolist()) == (1.0, [])


def slow_places(head, scored, scores, positives):
    """Item to place when the scored ones of a head are sorted among themselves."""
    places = [place for place, item in enumerate(head, 1) if item in scored]
    order = sorted((item for item in head if item in scored), key=lambda item: (-scores[item], item in positives, item))
    return {item: place for place, item in enumerate(head, 1)} | dict(zip(order, places, strict=True))


@given(data=st.data())
@settings(deadline=None)
def test_positives_after_reranking_equal_a_slow_loop(data):
    """Those in the head go where the teacher puts them, those behind it keep their rank; so does the recall of the whole head."""
    queries, items, depth = (data.draw(st.integers(1, high)) for high in (4, 9, 6))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pairs = data.draw(st.sets(st.tuples(st.integers(0, queries - 1), st.integers(0, items - 1))))
    vectors = [random.integers(-2, 3, (count, 2)).astype(np.float32) for count in (queries, items)]
    similarities, scores = vectors[0] @ vectors[1].T, random.integers(-2, 3, (queries, items))
    is_scored = random.random((queries, items)) < 0.7
    positives = positives_of(sorted(pairs), queries, items)
    rows = [
        (query, item, place, (query, item) in pairs, is_scored[query, item], scores[query, item])
        for query, head in enumerate(heads(*vectors, depth, positives))
        for place, item in enumerate(head.items.tolist(), 1)
    ]
    found = reranked_positives(heads_of(rows), base := rank_positives(*vectors, positives))
    assert ((found.ranks <= depth) == (base.ranks <= depth)).all()
    for query in range(queries):
        own = {item for item in range(items) if (query, item) in pairs}
        order = sorted(range(items), key=lambda item: (-similarities[query, item], item in own, item))
        scored = set(np.flatnonzero(is_scored[query]).tolist())
        places = slow_places(order[:depth], scored, scores[query], own)
        expected = sorted(places.get(item, order.index(item) + 1) for item in own)
        assert sorted(found.ranks[positives.queries == query].tolist()) == expected
