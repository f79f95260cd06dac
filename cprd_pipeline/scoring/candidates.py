"""The candidates folder as arrays, part by part."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.corpus.reader import Corpus, Rows
from cprd_pipeline.errors import StoreError
from cprd_pipeline.scoring.pairs import Codes, Direction, PairSpace
from cprd_pipeline.scoring.settings import ScoreSettings
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.schemas import CANDIDATES, check_schema

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Lists:
    """The candidates, or the positives, of the queries of a part, end to end.

    Args:
        lengths: Items of each query, int64 [R].
        rows: Corpus row of each item, int64 [T].
        codes: The pair of query and item, int64 [T].
        similarities: By the miner, float32 [T].
    """

    lengths: Rows
    rows: Rows
    codes: Codes
    similarities: Floats

    @property
    def query(self) -> Rows:
        """Which query of the part each item belongs to, int64 [T]."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


@dataclass(frozen=True)
class CandidatesPart:
    """A part of one direction.

    Args:
        name: Of the file.
        direction: Who asks.
        query_ids: [R].
        candidates: Best first, by similarity.
        positives: In the order of the file.
    """

    name: str
    direction: Direction
    query_ids: pa.StringArray
    candidates: Lists
    positives: Lists


def open_candidates(settings: ScoreSettings, corpus: Corpus) -> InputFolder:
    """The folder.

    Raises:
        StoreError: No whole candidates folder, or one of another corpus.
    """
    folder = InputFolder(settings.candidates, "candidates")
    made_from = folder.manifest.inputs.get("corpus", "no corpus")
    if made_from != corpus.digest:
        raise StoreError(
            f"{folder.path}: candidates of another corpus ({made_from[:8]})",
            expected=f"of {corpus.path} ({corpus.digest[:8]})",
            do="run `cprd-pipeline mine` on this corpus; scores of equal content are reused",
        )
    return folder


def read_parts(folder: InputFolder, space: PairSpace, directions: tuple[Direction, ...]) -> Iterator[CandidatesPart]:
    """The parts of some directions, in the order of their names.

    Raises:
        StoreError: A part is damaged, or names an id that the corpus does not have.
    """
    for direction in directions:
        for name in folder.part_names(f"{direction}-"):
            yield read_part(folder, space, direction, name)


def read_part(folder: InputFolder, space: PairSpace, direction: Direction, name: str) -> CandidatesPart:
    """One part.

    Raises:
        StoreError: As `read_parts`.
    """
    where = str(folder.path / name)
    table = check_schema(folder.table(name), CANDIDATES, where).combine_chunks()
    queries, items = space.sides(direction)
    query_ids = _column(table, "query_id")
    query_rows = queries.rows_of(query_ids, where)

    def lists(ids: str, similarities: str) -> Lists:
        column = _column(table, ids)
        lengths = pc.list_value_length(column).to_numpy().astype(np.int64)
        rows = items.rows_of(column.flatten(), where)
        codes = space.codes(direction, np.repeat(query_rows, lengths), rows)
        return Lists(lengths, rows, codes, _column(table, similarities).flatten().to_numpy())

    return CandidatesPart(
        name, direction, query_ids, lists("candidate_ids", "similarities"), lists("positive_ids", "positive_similarities")
    )


def _column(table: pa.Table, name: str) -> pa.Array:
    return table[name].combine_chunks()
