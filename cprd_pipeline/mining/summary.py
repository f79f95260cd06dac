"""What a candidates folder holds, in figures: read back from its parts, so that a resumed run counts all of them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.mining.hubness import Occurrences
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.schemas import CANDIDATE_FILTERS

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Similarities are counted in bins, so that memory does not grow with the corpus; quantiles are right to half a bin.
_BINS = 20_000
_EDGES = np.linspace(-1, 1, _BINS + 1)
_COUNTERS = (
    "dropped_positive",
    "dropped_duplicate",
    *(f"dropped_{name}" for name in CANDIDATE_FILTERS),
    "passed",
    "merged",
    "dropped_merged",
)


class _Tally:
    """Counts of one direction.

    Args:
        item_ids: Of what the direction asks for.
    """

    def __init__(self, item_ids: pa.LargeStringArray) -> None:
        self._counts: Counter[str] = Counter()
        self._histograms = {name: np.zeros(_BINS, dtype=np.int64) for name in ("positives", "candidates")}
        self._occurrences = Occurrences(item_ids)

    def add(self, part: pa.Table, k: int) -> None:
        """Count a part."""
        lengths = pc.list_value_length(part["candidate_ids"]).to_numpy()
        positives = pc.list_value_length(part["positive_ids"]).to_numpy()
        self._counts.update(
            queries=part.num_rows,
            candidates=int(lengths.sum()),
            short_lists=int((lengths < k).sum()),
            empty_lists=int((lengths == 0).sum()),
            without_positive=int((positives == 0).sum()),
            with_positive_in_top_k=int((part["dropped_positive"].to_numpy() > 0).sum()),
            **{name: int(part[name].to_numpy().sum()) for name in _COUNTERS},
        )
        self._occurrences.add(pc.list_flatten(part["candidate_ids"]).combine_chunks())
        for name, column in (("positives", "positive_similarities"), ("candidates", "similarities")):
            values = pc.list_flatten(part[column]).to_numpy()
            # A cosine of rounded unit vectors may pass 1 by the last bit.
            self._histograms[name] += np.histogram(np.clip(values, -1, 1), _EDGES)[0]

    def results(self) -> dict[str, Any]:
        """Everything as JSON types."""
        counts = self._counts
        asked = counts["queries"] - counts["without_positive"]
        return {
            **{name: counts[name] for name in ("queries", "candidates", "short_lists", "empty_lists")},
            "queries_without_positive": counts["without_positive"],
            "recall_at_k": round(counts["with_positive_in_top_k"] / asked, 6) if asked else None,
            **{name: counts[name] for name in ("dropped_positive", "dropped_duplicate", "passed", "merged", "dropped_merged")},
            "dropped_by_filter": {name: counts[f"dropped_{name}"] for name in CANDIDATE_FILTERS},
            "similarity_quantiles": {name: _quantiles(histogram) for name, histogram in self._histograms.items()},
            "hubs": self._occurrences.results(),
        }


def summarise(folder: InputFolder, k: int, item_ids: Mapping[str, pa.LargeStringArray]) -> dict[str, dict[str, Any]]:
    """Counts, recall, similarity quantiles and hubs of each direction.

    `recall_at_k` is the share of the queries with a positive that have one among the k most similar items, filters aside;
    quantiles are null where there are no values.

    Args:
        folder: A finished candidates folder.
        k: Candidates a query, as the folder was mined with.
        item_ids: Of each direction: ids that may be candidates, one a content.
    """
    tallies = {direction: _Tally(ids) for direction, ids in item_ids.items()}
    for direction, tally in tallies.items():
        for name in folder.part_names(f"{direction}-"):
            tally.add(folder.table(name), k)
    return {direction: tally.results() for direction, tally in tallies.items()}


def _quantiles(counts: npt.NDArray[np.int64]) -> dict[str, float] | None:
    total = int(counts.sum())
    if not total:
        return None
    bins = np.searchsorted(np.cumsum(counts), [share * total for share in _QUANTILES])
    centres = (_EDGES[:-1] + _EDGES[1:]) / 2
    return {str(share): round(float(centre), 5) for share, centre in zip(_QUANTILES, centres[bins], strict=True)}
