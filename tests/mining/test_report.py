"""Figures of a finished folder against plain counts, and the advice that follows from them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.mining.advice import advise
from cprd_pipeline.mining.hubness import Occurrences
from cprd_pipeline.mining.settings import FilterSettings
from cprd_pipeline.store.schemas import CANDIDATE_FILTERS
from tests.corpus.counted_hashes import count_hashes

IDS = ["a", "b", "c", "d", "e", "f", "g"]


@settings(deadline=None)
@given(lists=st.lists(st.lists(st.sampled_from(IDS), unique=True), max_size=12))
def test_occurrences_are_those_of_a_plain_count(lists: list[list[str]]) -> None:
    """Mean, maximum, share that never occurs, Gini by its definition (mean absolute difference), skewness; the first by name."""
    occurrences = Occurrences(pa.array(IDS))
    for found in lists:
        occurrences.add(pa.array(found, pa.string()))
    results = occurrences.results()
    counts = np.array([sum(name in found for found in lists) for name in IDS])
    assert results["max"] == counts.max()
    assert results["mean"] == pytest.approx(counts.mean(), abs=1e-3)
    assert results["never"] == pytest.approx((counts == 0).mean(), abs=1e-6)
    assert results["top"] == dict(sorted([(n, c) for n, c in zip(IDS, counts, strict=True) if c], key=lambda e: (-e[1], e[0]))[:5])
    if counts.sum():
        gini = np.abs(counts[:, None] - counts[None]).mean() / (2 * counts.mean())
        assert results["gini"] == pytest.approx(gini, abs=1e-6)
    if counts.std():
        assert results["skewness"] == pytest.approx((((counts - counts.mean()) / counts.std()) ** 3).mean(), abs=1e-4)
    else:
        assert results["skewness"] is None


def test_items_are_hashed_once_for_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part costs what its lists hold."""
    counts = count_hashes(monkeypatch)
    occurrences = Occurrences(pa.array(IDS))
    for _ in range(20):
        occurrences.add(pa.array(["b", "b", "g"]))
    assert occurrences.results()["top"] == {"b": 40, "g": 20}
    assert sum(counts) == len(IDS) + 20 * 3


def direction(short: int, passed: int, **dropped: int) -> dict[str, Any]:
    """Results of a direction with 100 queries."""
    counts = dict.fromkeys(CANDIDATE_FILTERS, 0) | dropped
    return {"queries": 100, "short_lists": short, "passed": passed, "dropped_by_filter": counts}


def test_advice_names_the_filter_that_took_too_much() -> None:
    """Short lists are charged to the filter that dropped most; a filter that takes half is named even with full lists."""
    filters = FilterSettings(absolute_margin=0.1, max_similarity=0.8)
    short = {"i2t": direction(40, 100, absolute_margin=50, max_similarity=3), "t2i": direction(5, 100)}
    assert advise(short, filters, 8) == [
        "i2t: 40 of 100 lists have fewer than 8 candidates; filters.absolute_margin 0.1: lower it, or use a relative margin"
    ]
    greedy = {"i2t": direction(0, 100, max_similarity=101), "t2i": direction(0, 100, max_similarity=100)}
    assert advise(greedy, filters, 8) == ["i2t: 50% of the items looked at were dropped; filters.max_similarity 0.8: raise it"]


def test_no_advice_where_nothing_is_wrong() -> None:
    """A range of ranks drops what it says, short lists without any filter are the corpus's, and a few drops are what filters do."""
    fine = {"i2t": direction(0, 100, rank=900), "t2i": direction(90, 100)}
    assert advise(fine, FilterSettings(first_rank=10), 8) == []
    assert advise({"i2t": direction(5, 100, same_text=30)}, FilterSettings(), 8) == []
