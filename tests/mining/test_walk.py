"""How far the first fetch goes; what the walk gives is compared with a slow loop in `test_combinations`."""

from typing import Any

import numpy as np
import pytest

from cprd_pipeline.mining.filters import Filters
from cprd_pipeline.mining.search import ExactSearch, Excluded, TopItems, Vectors
from cprd_pipeline.mining.settings import FilterSettings
from cprd_pipeline.mining.walk import Askers, Walk


class Noting(ExactSearch):
    """Notes how many items it is asked for."""

    asked: list[int]

    def top(self, queries: Vectors, k: int, excluded: Excluded) -> TopItems:
        self.asked.append(k)
        return super().top(queries, k, excluded)


@pytest.mark.parametrize("same_text", [True, False])
@pytest.mark.parametrize(("bounds", "first"), [({"max_similarity": 0.9}, 16), ({"first_rank": 3}, 18), ({}, 9)])
def test_the_first_fetch_goes_deeper_for_bounds_whether_texts_are_compared_or_not(
    bounds: dict[str, Any], first: int, same_text: bool
) -> None:
    """A bound may drop many items, the same text few."""
    vectors = np.eye(40, dtype=np.float32)
    search = Noting(vectors)
    search.asked = []
    classes = np.array([0, *range(39)]) if same_text else None
    filters = Filters(FilterSettings(**bounds, same_text=same_text), {}, True, classes)
    nothing = Excluded(np.zeros(2, dtype=np.int64), np.empty(0, dtype=np.int64))
    Walk(search, filters, 8, 8).pool(Askers(np.array([0]), vectors[:1], nothing, np.array([np.inf])))
    assert search.asked[0] == (8 if filters.idle else first)
