"""Hubs: items that are a candidate of very many queries, and so get a large part of the teacher's time and of the gradient."""

from typing import Any

import numpy as np
import pyarrow as pa

from cprd_pipeline.corpus.lookup import IdLookup

NAMED = 5
"""Items that are named."""


class Occurrences:
    """Counts how often each item is a candidate.

    Args:
        ids: Of the items that may be one.
    """

    def __init__(self, ids: pa.Array) -> None:
        self._ids = ids
        self._lookup = IdLookup(ids)
        self._counts = np.zeros(len(ids), dtype=np.int64)

    def add(self, candidate_ids: pa.Array) -> None:
        """Count the candidates of some queries."""
        # In place: `bincount` would make an array of all items for each part.
        np.add.at(self._counts, self._lookup.rows(candidate_ids), 1)

    def results(self) -> dict[str, Any]:
        """How uneven the counts are.

        `mean` and `max` are occurrences of an item, `never` the share of items that occur in no list, `gini` is 0 when all occur
        equally often and near 1 when one item is everywhere, `skewness` is the usual measure of hubness (Radovanović et al. 2010):
        0 for a symmetric distribution, large where there are hubs; null where all occur equally often. `top` names the first.
        """
        counts, total = np.sort(self._counts), int(self._counts.sum())
        if not total:
            return {"mean": 0.0, "max": 0, "never": 1.0, "gini": None, "skewness": None, "top": {}}
        ranks = np.arange(1, len(counts) + 1)
        gini = (2 * (ranks * counts).sum() / total - len(counts) - 1) / len(counts)
        centred = counts - counts.mean()
        spread = float(np.sqrt(np.mean(centred**2)))
        first = np.lexsort((np.arange(len(counts)), -self._counts))[:NAMED]
        return {
            "mean": round(total / len(counts), 3),
            "max": int(counts[-1]),
            "never": round(float((counts == 0).mean()), 6),
            "gini": round(float(gini), 6),
            "skewness": round(float(np.mean(centred**3)) / spread**3, 4) if spread else None,
            "top": {self._ids[int(row)].as_py(): int(self._counts[row]) for row in first if self._counts[row]},
        }
