"""Lists of an earlier round, candidates or rankings, read beside the queries of this one.

Shape suffixes: R queries, N items of all their lists.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import StoreError
from cprd_pipeline.mining.contents import Contents
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.schemas import CANDIDATES, RANKINGS, check_schema

_SCHEMAS = {"candidates": CANDIDATES, "rankings": RANKINGS}
_READ = ("query_id", "candidate_ids", "teacher_scores")


@dataclass(frozen=True)
class EarlierItems:
    """Candidates of some queries, end to end.

    Args:
        owners: Query of each item, from 0, ascending.
        items: Content of each item.
        scores: The teacher's, in rankings; None in candidates.
    """

    owners: Int64[np.ndarray, " N"]
    items: Int64[np.ndarray, " N"]
    scores: Float32[np.ndarray, " N"] | None


def open_earlier(path: Path, kind: str, corpus: Corpus) -> InputFolder:
    """A folder of an earlier round.

    Args:
        path: The folder.
        kind: `candidates` or `rankings`.
        corpus: What is mined now.

    Raises:
        StoreError: No such folder, or one of another corpus.
    """
    folder = InputFolder(path, kind)
    made_from = folder.manifest.inputs.get("corpus", "no corpus")
    if made_from != corpus.digest:
        raise StoreError(
            f"{path}: {kind} of another corpus ({made_from[:8]})",
            expected=f"of {corpus.path} ({corpus.digest[:8]})",
            do="name a folder that was made from this corpus",
        )
    return folder


class EarlierLists:
    """One direction of a folder.

    Args:
        folder: Candidates or rankings of the same corpus.
        direction: `i2t` or `t2i`.
        queries: The side that asks now, in the order of the split.
        items: The side that is asked for.

    Raises:
        StoreError: The folder has not as many queries as the split.
    """

    def __init__(self, folder: InputFolder, direction: str, queries: Contents, items: Contents) -> None:
        self._folder = folder
        self._queries = queries
        self._items = items
        self._names = folder.part_names(f"{direction}-")
        rows = {part.name: part.rows or 0 for part in folder.manifest.parts}
        self._starts = np.concatenate([[0], np.cumsum([rows[name] for name in self._names])]).astype(np.int64)
        if self._starts[-1] != len(queries.ids):
            raise self._foreign(f"{self._starts[-1]:,} {direction} queries", f"the {len(queries.ids):,} of the split")
        # The part that was read last: an earlier round may have far larger parts than the blocks that are asked for.
        self._kept: tuple[str, pa.Table] | None = None

    def of(self, start: int, stop: int) -> EarlierItems:
        """Lists of the queries from `start` up to `stop`; items of one content are one item.

        Raises:
            StoreError: The folder is damaged, or has other queries or items than the split.
        """
        table = self._rows(start, stop)
        queries = self._queries.ids.slice(start, stop - start)
        if table["query_id"].combine_chunks().cast(queries.type) != queries:
            raise self._foreign("queries of another split", "those of the split that is mined")
        lists = table["candidate_ids"].combine_chunks()
        try:
            rows = self._items.lookup.rows(lists.flatten())
        except KeyError as error:
            stranger = f"{error.args[0]!r}, which is not in the split"
            raise self._foreign(stranger, "candidates of the split that is mined") from None
        lengths = pc.list_value_length(lists).to_numpy().astype(np.int64)
        scores = None
        if "teacher_scores" in table.column_names:
            scores = table["teacher_scores"].combine_chunks().flatten().to_numpy()
        owners = np.repeat(np.arange(len(lengths)), lengths)
        return EarlierItems(owners, self._items.of_row[rows], scores)

    def _rows(self, start: int, stop: int) -> pa.Table:
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, stop, side="left"))
        parts = [self._part(name) for name in self._names[first:last]]
        return pa.concat_tables(parts).slice(start - int(self._starts[first]), stop - start)

    def _part(self, name: str) -> pa.Table:
        if self._kept is None or self._kept[0] != name:
            # The old part goes before the new one comes.
            self._kept = None
            schema, where = _SCHEMAS[self._folder.kind], str(self._folder.path / name)
            table = check_schema(self._folder.table(name), schema, where)
            self._kept = name, table.select([column for column in _READ if column in schema.names])
        return self._kept[1]

    def _foreign(self, found: str, expected: str) -> StoreError:
        return StoreError(
            f"{self._folder.path}: holds {found}",
            expected=expected,
            do="name a folder that was made with the same split, or mend `split`",
        )
