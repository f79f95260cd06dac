"""What a candidates folder holds, in figures: read back from its parts, so that a resumed run counts all of them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.store.folder import InputFolder

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Similarities are counted in bins, so that memory does not grow with the corpus; quantiles are right to half a bin.
_BINS = 20_000
_EDGES = np.linspace(-1, 1, _BINS + 1)


@dataclass
class _Tally:
    """Counts of one direction."""

    queries: int = 0
    candidates: int = 0
    short_lists: int = 0
    empty_lists: int = 0
    without_positive: int = 0
    with_positive_in_top_k: int = 0
    dropped_positive: int = 0
    dropped_duplicate: int = 0
    histograms: dict[str, npt.NDArray[np.int64]] = field(
        default_factory=lambda: {name: np.zeros(_BINS, dtype=np.int64) for name in ("positives", "candidates")}
    )

    def add(self, part: pa.Table, k: int) -> None:
        lengths = pc.list_value_length(part["candidate_ids"]).to_numpy()
        positives = pc.list_value_length(part["positive_ids"]).to_numpy()
        ahead = part["dropped_positive"].to_numpy()
        self.queries += part.num_rows
        self.candidates += int(lengths.sum())
        self.short_lists += int((lengths < k).sum())
        self.empty_lists += int((lengths == 0).sum())
        self.without_positive += int((positives == 0).sum())
        self.with_positive_in_top_k += int((ahead > 0).sum())
        self.dropped_positive += int(ahead.sum())
        self.dropped_duplicate += int(part["dropped_duplicate"].to_numpy().sum())
        for name, column in (("positives", "positive_similarities"), ("candidates", "similarities")):
            values = pc.list_flatten(part[column]).to_numpy()
            # A cosine of rounded unit vectors may pass 1 by the last bit.
            self.histograms[name] += np.histogram(np.clip(values, -1, 1), _EDGES)[0]

    def results(self) -> dict[str, Any]:
        asked = self.queries - self.without_positive
        return {
            "queries": self.queries,
            "candidates": self.candidates,
            "short_lists": self.short_lists,
            "empty_lists": self.empty_lists,
            "queries_without_positive": self.without_positive,
            "recall_at_k": round(self.with_positive_in_top_k / asked, 6) if asked else None,
            "dropped_positive": self.dropped_positive,
            "dropped_duplicate": self.dropped_duplicate,
            "similarity_quantiles": {name: _quantiles(counts) for name, counts in self.histograms.items()},
        }


def summarise(folder: InputFolder, k: int) -> dict[str, dict[str, Any]]:
    """Counts, recall and similarity quantiles of each direction.

    `recall_at_k` is the share of the queries with a positive that have one among the k most similar items;
    quantiles are null where there are no values.

    Args:
        folder: A finished candidates folder.
        k: Candidates a query, as the folder was mined with.
    """
    tallies = {"i2t": _Tally(), "t2i": _Tally()}
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
