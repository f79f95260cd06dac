import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cprd_pipeline.metrics import similarities
from cprd_pipeline.metrics.graded import gain, ideal_dcg, ndcg_of_embeddings, ndcg_of_lists


def slow_similarity(a, b):
    """Dot product of two float32 vectors as `math.fsum` of exact products, rounded to float32 by the caller."""
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def slow_ndcg(similarities, relevance, k):
    """nDCG@k of one query; among equals the less relevant first."""
    gains = [(2 ** (4 * float(r)) - 1) / 15 for r in relevance]
    order = sorted(range(len(gains)), key=lambda item: (-similarities[item], gains[item]))
    dcg = sum(gains[item] / math.log2(place + 2) for place, item in enumerate(order[:k]))
    ideal = sum(g / math.log2(place + 2) for place, g in enumerate(sorted(gains, reverse=True)[:k]))
    return dcg / ideal if ideal else 0.0


def test_gain_by_hand():
    """Grades 0 to 4 have the gains 0, 1, 3, 7, 15 fifteenths."""
    relevance = np.array([0, 0.25, 0.5, 0.75, 1], dtype=np.float32)
    assert (gain(relevance) * 15).tolist() == pytest.approx([0, 1, 3, 7, 15])


def test_ndcg_by_hand():
    """Two items in the wrong order: (g2 + g1 / log2 3) / (g1 + g2 / log2 3)."""
    queries, items = np.array([[1.0]], dtype=np.float32), np.array([[0.2], [0.9], [0.1]], dtype=np.float32)
    relevance = np.array([[1.0, 0.5, 0.0]], dtype=np.float32)
    discount = math.log2(3)
    expected = (0.2 + 1 / discount) / (1 + 0.2 / discount)
    assert ndcg_of_embeddings(queries, items, relevance).tolist() == pytest.approx([expected])
    assert ndcg_of_embeddings(queries, items, relevance, k=1).tolist() == pytest.approx([0.2])


@pytest.mark.parametrize("block", [1, 30, 2**22])
def test_ndcg_equals_a_slow_loop_with_equal_vectors(monkeypatch, block):
    """Ties fall against the model in every block size, also where the cut of the head lies inside a tie."""
    random = np.random.default_rng(3)
    queries = random.normal(size=(9, 33)).astype(np.float32)
    items = random.normal(size=(30, 33)).astype(np.float32)
    items[10:20] = items[0]
    relevance = random.choice([0, 0.25, 0.5, 1], size=(9, 30)).astype(np.float32)
    relevance[4] = 0
    monkeypatch.setattr(similarities, "_BLOCK_SIMILARITIES", block)
    for k in (1, 5, 10, 40):
        expected = [
            slow_ndcg([np.float32(slow_similarity(q, x)) for x in items], relevance[row], k) for row, q in enumerate(queries)
        ]
        assert ndcg_of_embeddings(queries, items, relevance, k=k).tolist() == pytest.approx(expected, abs=1e-12)
    assert expected[4] == 0.0


@given(
    st.lists(
        st.lists(st.tuples(st.integers(-2, 2), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=6), min_size=1, max_size=4
    ),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_ndcg_of_lists_equals_a_slow_loop(lists, k, random):
    """Ragged lists in any order give each list's nDCG."""
    flat = [(row, key, relevance) for row, items in enumerate(lists) for key, relevance in items]
    random.shuffle(flat)
    rows, keys, relevances = (np.array(column) for column in zip(*flat, strict=True))
    gains = gain(relevances.astype(np.float32))
    ideal = np.concatenate([ideal_dcg(gain(np.array([[r for _, r in items]], dtype=np.float32)), k) for items in lists])
    found = ndcg_of_lists(rows.astype(np.int64), keys.astype(np.float32), gains, ideal, k)
    expected = [slow_ndcg([key for key, _ in items], [r for _, r in items], k) for items in lists]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
