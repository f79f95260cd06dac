"""The Delta table under the score store: which data files count, and replacing them in one step.

Files are written by us, not by deltalake: sorted, small, and named after their digest, so that the table's own log,
however it is cleaned or checkpointed, says what each file's bytes must be. Nothing here takes the lock.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.atomic import sync_file, sync_folder
from cprd_pipeline.store.score_disk import ScoreDisk, ScoreFile, one_line
from cprd_pipeline.store.score_rows import SCHEMA

FAILURES = (DeltaError, OSError, pa.ArrowException)
"""What deltalake and pyarrow raise about files."""


class ScoreTable:
    """The table at one address.

    Args:
        uri: Folder or object-store address.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.disk = ScoreDisk(uri)

    def exists(self) -> bool:
        """Whether somebody made the table.

        Raises:
            StoreError: There are score files but no log that lists them, or the address cannot be reached.
        """
        with self._reading():
            if deltalake.DeltaTable.is_deltatable(self.uri):
                return True
            if self.disk.has_files():
                raise StoreError(
                    f"{self.uri}: score files without the log that lists them (_delta_log is gone)",
                    do="restore the folder _delta_log; nothing is scored again until then",
                )
            return False

    def files(self, teacher: str | None = None) -> list[ScoreFile]:
        """The files of the table as it is now, sorted by path; none if there is no table.

        Args:
            teacher: Of this teacher only.

        Raises:
            StoreError: The log is damaged, or the table is not one of scores.
        """
        if not self.exists():
            return []
        with self._reading():
            actions = _actions(self._open())
        return sorted(self._file(one) for one in actions if teacher in (None, one["partition.teacher"]))

    def _file(self, action: dict[str, Any]) -> ScoreFile:
        path, rows = action["path"], action["num_records"]
        if rows is None:  # statistics are optional in Delta: another writer may have left them out
            rows = self.disk.row_count(path)
        return ScoreFile(path, action["partition.teacher"], action["size_bytes"], rows)

    def create(self) -> None:
        """Make the table if it is not there; another writer may do so at the same time.

        Raises:
            StoreError: As `exists`.
        """
        if self.exists():
            return
        try:
            deltalake.DeltaTable.create(self.uri, SCHEMA, mode="error", partition_by=["teacher"])
        except DeltaError:
            if not deltalake.DeltaTable.is_deltatable(self.uri):
                raise

    def commit(self, add: Sequence[ScoreFile], remove: Sequence[ScoreFile] = ()) -> None:
        """Replace files by others in one step that is done whole or not at all.

        Files that others add at the same time stay.

        Raises:
            StoreError: Somebody else has removed one of `remove`, or this is no table of scores.
            deltalake.exceptions.DeltaError: The commit failed; somebody removing one of `remove` meanwhile is a reason.
        """
        table, now = self._open(), int(time.time() * 1000)
        if remove and not {file.path for file in remove} <= {one["path"] for one in _actions(table)}:
            raise StoreError(f"{self.uri}: somebody else replaced the same files", do="run the same command again")
        added = [
            AddAction(file.path, file.size, {"teacher": file.teacher}, now, True, json.dumps({"numRecords": file.rows}))
            for file in add
        ]
        removed = [RemoveAction(file.path, True, now, file.size, {"teacher": file.teacher}) for file in remove]
        table.create_write_transaction([*added, *removed], mode="append", schema=SCHEMA, partition_by=["teacher"])
        if self.disk.folder is not None:
            _sync_log(self.disk.folder / "_delta_log", table.version() + 1)

    def checkpoint(self) -> None:
        """Write down the list of files as one, so that opening the table reads no long history."""
        self._open().create_checkpoint()

    def _open(self) -> deltalake.DeltaTable:
        table = deltalake.DeltaTable(self.uri)
        columns = pa.schema(table.schema().to_arrow())
        if columns.names != SCHEMA.names or columns.types != SCHEMA.types:
            found = ", ".join(f"{column.name}: {column.type}" for column in columns)
            wanted = ", ".join(f"{column.name}: {column.type}" for column in SCHEMA)
            raise StoreError(f"{self.uri}: columns are {found}", expected=wanted, do="name another folder for the score store")
        if table.metadata().partition_columns != ["teacher"] or table.protocol().min_reader_version > 1:
            raise StoreError(
                f"{self.uri}: another program changed the layout of this table",
                expected="a Delta table of reader version 1 with one folder for each teacher",
                do="restore it, or import its scores into a new store",
            )
        return table

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            raise StoreError(
                f"{self.uri}: the score store cannot be read ({one_line(error)})",
                do="check the address, or restore the folder _delta_log from a copy; no score file was touched",
            ) from error


def _actions(table: deltalake.DeltaTable) -> list[dict[str, Any]]:
    return list(pa.table(table.get_add_actions(flatten=True)).to_pylist())


def _sync_log(log: Path, version: int) -> None:
    """Force commits from `version` on to the disk: deltalake leaves that to the system."""
    while (commit := log / f"{version:020d}.json").is_file():
        sync_file(commit)
        version += 1
    sync_folder(log)
