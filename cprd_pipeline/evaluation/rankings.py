"""The split's rankings as arrays over the corpus: what the teacher said, list by list."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.corpus.reader import Corpus, Items, Rows, Split
from cprd_pipeline.errors import StoreError
from cprd_pipeline.evaluation.questions import Direction
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.schemas import RANKINGS, check_schema


@dataclass(frozen=True)
class Lists:
    """The candidates, or the positives, of all queries of one direction, end to end.

    Args:
        lengths: Items per query, in the order of the rankings; int64 [R].
        queries: Corpus row of the query of each item; int64 [T].
        items: Corpus row of each item; int64 [T].
        teacher_scores: Raw logits; float32 [T].
        similarities: By the student that mined them; float32 [T].
    """

    lengths: Rows
    queries: Rows
    items: Rows
    teacher_scores: npt.NDArray[np.float32]
    similarities: npt.NDArray[np.float32]


@dataclass(frozen=True)
class DirectionRankings:
    """Rankings of one direction in the order of the files; `query_ids` has one entry a query."""

    query_ids: list[str]
    candidates: Lists
    positives: Lists


class Rankings:
    """A rankings folder of one split of a corpus.

    Args:
        path: The folder.
        corpus: The corpus that it must be of.
        split: The split that it must be of.

    Raises:
        StoreError: Another corpus, another split, candidates left out, or a damaged folder.
    """

    def __init__(self, path: Path, corpus: Corpus, split: Split) -> None:
        self.path = path
        self._folder = InputFolder(path, "rankings")
        self._corpus = corpus
        self._split = split
        self.digest = self._folder.manifest.digest
        made_from = self._folder.manifest.inputs.get("corpus", "no corpus")
        if made_from != corpus.digest:
            raise StoreError(
                f"{path}: rankings of another corpus ({made_from[:8]})",
                expected=f"of {corpus.path} ({corpus.digest[:8]})",
                do="run mine and score-teacher on this corpus; scores of equal content are reused",
            )

        if self._folder.manifest.settings.get("false_negatives") == "drop":
            raise StoreError(
                f"{path}: rankings from which probable false negatives were dropped, so the teacher would look too good",
                expected="false_negatives: keep or mark",
                do="score the split that is evaluated with keep or mark; no pair is scored again",
            )

    def direction(self, direction: Direction) -> DirectionRankings:
        """Read one direction.

        Raises:
            StoreError: A query or an item is not of the split.
        """
        table = check_schema(self._folder.tables(""), RANKINGS, str(self.path))
        table = table.filter(pc.equal(table["direction"], direction)).combine_chunks()
        sides = (self._corpus.images, self._split.images), (self._corpus.captions, self._split.captions)
        (queries, query_rows), (items, item_rows) = sides if direction == "i2t" else sides[::-1]
        rows = self._rows(table["query_id"], queries, query_rows)

        def lists(ids: str, scores: str, similarities: str) -> Lists:
            lengths = pc.list_value_length(table[ids]).to_numpy().astype(np.int64)
            found = self._rows(_flat(table[ids]), items, item_rows)
            numbers = (_flat(table[name]).to_numpy() for name in (scores, similarities))
            return Lists(lengths, np.repeat(rows, lengths), found, *numbers)

        return DirectionRankings(
            table["query_id"].to_pylist(),
            lists("candidate_ids", "teacher_scores", "similarities"),
            lists("positive_ids", "positive_scores", "positive_similarities"),
        )

    def _rows(self, ids: Any, items: Items, inside: Rows) -> Rows:
        """Corpus rows of ids, all of which must be in the split."""
        known = pa.array([items.ids[row] for row in inside], pa.string())
        places = pc.index_in(ids, value_set=known)
        if places.null_count:
            stranger = ids.filter(pc.is_null(places))[0].as_py()
            raise StoreError(
                f"{self.path}: {stranger!r} is not in split {self._split.name!r}",
                expected="rankings of the split that is evaluated",
                do="mend split or rankings in the settings",
            )
        found: Rows = inside[places.to_numpy().astype(np.int64)]
        return found


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks().flatten()
