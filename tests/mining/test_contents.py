"""Grouping by content, and what a query's row says about ties and copies: small cases worked out by hand."""

import numpy as np
import pyarrow as pa

from cprd_pipeline.corpus.reader import Items
from cprd_pipeline.mining.candidates import Miner, Sampling
from cprd_pipeline.mining.contents import Contents, group_contents
from cprd_pipeline.mining.filters import Filters
from cprd_pipeline.mining.search import ExactSearch
from cprd_pipeline.mining.settings import FilterSettings, SamplerSettings
from cprd_pipeline.mining.sides import group_positives
from cprd_pipeline.store.fingerprint import bytes_digest, stack_digests


def side(*named: tuple[str, str]) -> Contents:
    """A side from (id, content) in corpus order, with a row of another split before it."""
    ids = ["elsewhere", *(name for name, _ in named)]
    digests = stack_digests(bytes_digest(content.encode()) for content in ["none", *(content for _, content in named)])
    items = Items(ids, digests, np.array(["test"] + ["train"] * len(named), dtype=object))
    return group_contents(items, np.arange(1, len(ids)))


def test_contents_are_numbered_by_their_lowest_id() -> None:
    """Whatever the corpus order and the digests; members of a content come by id."""
    found = side(("d", "red"), ("b", "blue"), ("a", "red"), ("é", "green"), ("c", "blue"), ("Z", "white"))
    assert [found.ids[row].as_py() for row in found.first] == ["Z", "a", "b", "é"]
    assert found.of_row.tolist() == [1, 2, 1, 3, 2, 0]
    assert found.copies.tolist() == [1, 2, 2, 1]
    assert [found.ids[row].as_py() for row in found.members] == ["Z", "a", "d", "b", "c", "é"]
    assert found.id_rank.tolist() == [4, 2, 1, 5, 3, 0]


def mine(queries: Contents, items: Contents, pairs: list[tuple[int, int]], similarities: list[float], k: int) -> pa.Table:
    """Rows of all queries, where item content g has the given cosine with every query."""
    angles = np.arccos(np.array(similarities))
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    asking = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (len(queries), 1))
    positives = group_positives(np.array(pairs, dtype=np.int64).reshape(-1, 2), queries, items)
    sampling = Sampling(SamplerSettings(), k, np.zeros(len(items), dtype=np.uint64))
    filters = Filters(FilterSettings(), {}, True)
    return Miner("i2t", queries, asking, items, ExactSearch(vectors), positives, k, filters, sampling).part(0, 100)


def test_ties_go_by_id_for_candidates_and_positives_alike() -> None:
    """Of equally similar items the lower id stands first, so a positive counts as dropped only when it is before the end."""
    items = side(("e", "5"), ("d", "4"), ("c", "3"), ("b", "2"), ("a", "1"))
    queries = side(("q", "q"), ("r", "r"))
    # Rows 4 and 0 of the items are ids a and e.
    table = mine(queries, items, [(0, 4), (1, 0)], [0.5] * 5, k=2).to_pylist()
    assert [row["candidate_ids"] for row in table] == [["b", "c"], ["a", "b"]]
    assert [row["positive_ids"] for row in table] == [["a"], ["e"]]
    assert [row["dropped_positive"] for row in table] == [1, 0]


def test_positives_are_closed_over_equal_contents_on_both_sides() -> None:
    """Only (q, x) is annotated; y is x's text again and p is q's picture again, so all four pairs are positive."""
    items = side(("x", "same"), ("y", "same"), ("z", "other"))
    queries = side(("q", "picture"), ("p", "picture"))
    table = mine(queries, items, [(0, 0)], [0.9, 0.1], k=3).to_pylist()
    assert [row["query_id"] for row in table] == ["q", "p"]
    assert [row["positive_ids"] for row in table] == [["x", "y"], ["x", "y"]]
    assert [row["candidate_ids"] for row in table] == [["z"], ["z"]]
    assert [row["dropped_positive"] for row in table] == [2, 2]


def test_copies_of_candidates_are_counted_and_left_out() -> None:
    """Each content once, under its lowest id; copies of contents beyond the list are not counted."""
    items = side(("c", "near"), ("a", "near"), ("b", "near"), ("e", "far"), ("d", "far"))
    table = mine(side(("q", "q")), items, [], [0.9, 0.1], k=1).to_pylist()
    assert table[0]["candidate_ids"] == ["a"]
    assert table[0]["dropped_duplicate"] == 2
    assert table[0]["positive_ids"] == []
