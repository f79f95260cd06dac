"""The rankings folders part by part, as rows of the corpus instead of ids."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.corpus.reader import Corpus, Items, Rows
from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.schemas import RANKINGS, check_schema

Direction = Literal["i2t", "t2i"]

NEVER_VALID = np.float32(np.inf)
"""The cutoff of a query that has no valid item."""

_DIRECTIONS: tuple[Direction, Direction] = ("i2t", "t2i")


class RankingsPart(NamedTuple):
    """The rankings of one direction in one part.

    Args:
        direction: Who asks.
        query_rows: Corpus rows of the queries, int64 [Q].
        cutoffs: Lowest valid score of each, infinite where none is valid; float32 [Q].
        candidates: Number of candidates of all.
        queries: Canonical query row of each scored pair, int64 [P].
        items: Canonical item row of each, int64 [P].
        scores: float32 [P].
        flagged: Probable false negatives; bool [P].
    """

    direction: Direction
    query_rows: Rows
    cutoffs: npt.NDArray[np.float32]
    candidates: int
    queries: Rows
    items: Rows
    scores: npt.NDArray[np.float32]
    flagged: npt.NDArray[np.bool_]


class RankingsReader:
    """Reads rankings of one corpus, as often as it is asked to.

    Args:
        folders: The rankings.
        corpus: The corpus they were made from.
    """

    def __init__(self, folders: Sequence[InputFolder], corpus: Corpus) -> None:
        self._folders = folders
        self._images, self._captions = _Side(corpus.images), _Side(corpus.captions)

    def parts(self) -> Iterator[RankingsPart]:
        """All parts, one direction at a time.

        Raises:
            StoreError: A part is damaged or of another schema, or names an id that the corpus does not have.
        """
        for folder in self._folders:
            for name in folder.part_names(""):
                where = str(folder.path / name)
                table = check_schema(folder.table(name), RANKINGS, where)
                for direction in _DIRECTIONS:
                    rows = table.filter(pc.equal(table["direction"], direction)).combine_chunks()
                    if len(rows):
                        yield self._part(rows, direction, where)

    def _part(self, rows: pa.Table, direction: Direction, where: str) -> RankingsPart:
        queries, items = (self._images, self._captions) if direction == "i2t" else (self._captions, self._images)
        candidates, positives = (rows[name].combine_chunks() for name in ("candidate_ids", "positive_ids"))
        query_rows = queries.rows(rows["query_id"].combine_chunks(), where)
        lengths = np.concatenate([pc.list_value_length(lists).to_numpy() for lists in (candidates, positives)])
        item_rows = items.rows(pa.concat_arrays([candidates.flatten(), positives.flatten()]), where)
        count = len(candidates.flatten())
        flagged = np.zeros(len(item_rows), dtype=np.bool_)
        flagged[:count] = _values(rows, "false_negative")
        scores = _values(rows, "teacher_scores")
        if len(scores) != count or not np.isfinite(scores).all():
            raise StoreError(f"{where}: scores that are not finite, or not one a candidate", do="run score-teacher again")
        return RankingsPart(
            direction,
            query_rows,
            pc.fill_null(rows["valid_cutoff"], float(NEVER_VALID)).to_numpy(),
            count,
            queries.canonical[np.repeat(np.tile(query_rows, 2), lengths)],
            items.canonical[item_rows],
            np.concatenate([scores, _values(rows, "positive_scores")]),
            flagged,
        )


class _Side:
    """Images or captions of the corpus."""

    def __init__(self, items: Items) -> None:
        self.canonical = items.first_with_digest
        self._lookup = items.lookup

    def rows(self, ids: pa.Array, where: str) -> Rows:
        try:
            return self._lookup.rows(ids)
        except KeyError as error:
            raise StoreError(
                f"{where}: {error.args[0]!r} is not in the corpus", expected="ids of this corpus", do="run score-teacher again"
            ) from None


def _values(rows: pa.Table, name: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = rows[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values
