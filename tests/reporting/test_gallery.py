"""The gallery's data in the page, against the small run's matrices."""

import numpy as np
import pytest

from cprd_pipeline.reporting.gallery import ABOVE, POSITIVE
from cprd_pipeline.store.folder import InputFolder
from tests.reporting.conftest import HOSTILE, write


def test_orders_are_those_of_miner_teacher_and_student(made, written):
    """Candidates and positives of every query with their values, places and marks."""
    data = written.data
    assert [order["title"] for order in data["orders"]] == ["base", "teacher", "cprd"]
    assert len(data["queries"]) == 14 + 42
    matrices = (made.similarities["base"], made.teacher_scores, made.similarities["cprd"])
    rankings = InputFolder(made.root / "rankings", "rankings").tables("").to_pylist()
    by_query = {(row["direction"], row["query_id"]): row for row in rankings}
    for query in data["queries"]:
        queries, items = made.sides(query["direction"])
        row = queries.row_of[query["id"]]
        ranking = by_query[query["direction"], query["id"]]
        positives = {items.row_of[item] for item in ranking["positive_ids"]}
        listed = [items.row_of[item] for item in ranking["candidate_ids"]] + sorted(positives)
        best = max(ranking["positive_scores"])
        for who, matrix in enumerate(matrices):
            values = made.row(matrix, query["direction"], row)
            expected = sorted(listed, key=lambda item: (-values[item], item in positives))
            shown = sorted(query["items"], key=lambda item: item[5 + who])
            assert [item[5 + who] for item in shown] == list(range(1, len(listed) + 1))
            assert [item[2 + who] for item in shown] == pytest.approx([float(values[item]) for item in expected], abs=6e-4)
            assert [bool(item[1] & POSITIVE) for item in shown] == [item in positives for item in expected]
            if query["direction"] == "i2t":
                assert [data["texts"][item[0]] for item in shown] == [made.corpus.texts[item] for item in expected]
        scores = made.row(made.teacher_scores, query["direction"], row)
        above = sum(scores[item] > best for item in listed if item not in positives)
        assert sum(bool(item[1] & ABOVE) for item in query["items"]) == above


def test_only_what_is_shown_is_in_the_page(made, tmp_path):
    """The first items of each order and no others; few texts and pictures beside them."""
    gallery = {"queries": 4, "shown": 2, "thumbnail_pixels": 32}
    data = write(made, gallery=gallery, output=tmp_path / "report.html", report=tmp_path / "report.json").data
    assert [query["direction"] for query in data["queries"]] == ["i2t"] * 4 + ["t2i"] * 4
    for query in data["queries"]:
        assert all(min(item[5:]) <= 2 for item in query["items"])
        assert all(sorted(item[5 + who] for item in query["items"])[:2] == [1, 2] for who in range(3))
    named = {item[0] for query in data["queries"] if query["direction"] == "i2t" for item in query["items"]}
    assert named | {query["asks"] for query in data["queries"] if query["direction"] == "t2i"} == set(range(len(data["texts"])))


def test_each_picture_and_text_is_in_the_page_once(written):
    """Lists name them by number."""
    data = written.data
    pictures = {query["asks"] for query in data["queries"] if query["direction"] == "i2t"}
    pictures |= {item[0] for query in data["queries"] if query["direction"] == "t2i" for item in query["items"]}
    assert pictures == set(range(len(data["images"])))
    assert len(data["images"]) == 14
    assert all(image.startswith("data:image/webp;base64,") for image in data["images"])
    assert data["texts"].count(HOSTILE) == 1


def test_filters_hold_the_queries_they_speak_of(made, written):
    """All queries are in the page here, so each filter must hold every query of its kind, sorted as it says."""
    data = written.data
    filters = {found["key"]: found for found in data["filters"]}
    assert list(filters) == ["all", "fixed", "broken", "disagree", "false_negative", "random"]
    queries = data["queries"]
    ranks = np.array([query["ranks"] for query in queries])
    assert set(filters["fixed"]["queries"]) == set(np.flatnonzero((ranks[:, 0] > 1) & (ranks[:, 1] == 1)))
    assert set(filters["broken"]["queries"]) == set(np.flatnonzero((ranks[:, 0] == 1) & (ranks[:, 1] > 1)))
    assert [ranks[row, 0] for row in filters["fixed"]["queries"]] == sorted(ranks[filters["fixed"]["queries"], 0], reverse=True)
    excess = [query["excess"] for query in queries]
    assert set(filters["false_negative"]["queries"]) == {row for row, value in enumerate(excess) if value > 0}
    leads = [excess[row] for row in filters["false_negative"]["queries"]]
    assert leads == sorted(leads, reverse=True)
    agreement = [queries[row]["agreement"] for row in filters["disagree"]["queries"]]
    assert agreement == sorted(agreement)
    assert len(agreement) == 2 + 5
    fixed = len(filters["fixed"]["queries"])
    assert f"{fixed} of 56 queries ({fixed / 56:.1%}); {fixed} of them here" in filters["fixed"]["about"]


def test_another_seed_draws_other_queries(made, tmp_path):
    """And the same seed the same."""

    def drawn(seed):
        gallery = {"queries": 4, "shown": 3, "seed": seed}
        data = write(made, gallery=gallery, output=tmp_path / "report.html", report=tmp_path / "report.json").data
        return [query["id"] for query in data["queries"]]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
