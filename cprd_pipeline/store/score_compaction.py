"""Compaction: many small appended files of a teacher become few large sorted ones, and what nobody needs is deleted."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store import score_lock
from cprd_pipeline.store.score_disk import ScoreFile, one_line, unreadable
from cprd_pipeline.store.score_sort import RANGE_ROWS, SCRATCH_PREFIX, range_count, sorted_ranges
from cprd_pipeline.store.score_table import FAILURES, ScoreTable
from cprd_pipeline.store.scores import ScoreStore


class Compaction(NamedTuple):
    """What compaction did to one teacher's files.

    Args:
        teacher: Fingerprint.
        rows: Scores after it.
        doubled: Rows that were dropped because another one of the same key had a lower score, or the same.
        files_before: Files before it.
        files: Files after it.
        bytes_before: Their bytes before.
        bytes: Their bytes after.
    """

    teacher: str
    rows: int
    doubled: int
    files_before: int
    files: int
    bytes_before: int
    bytes: int


def compact(store: ScoreStore, teachers: list[str], range_rows: int = RANGE_ROWS) -> tuple[list[Compaction], int]:
    """Rewrite the files of these teachers; then delete every score file that the table does not need.

    A kill at any moment leaves the table as it was or as it will be; the next compaction clears what it left behind.
    Where the lock does not reach all machines that write (some network file systems), compact when none of them does.
    On an object store, where there is no lock, nothing is deleted: old files stay.

    Args:
        store: The score store.
        teachers: Fingerprints.
        range_rows: Rows a file, and in memory at once.

    Returns:
        One entry for each teacher whose files were not compact yet, and the number of deleted files.

    Raises:
        StoreError: Another process uses the store, a file of it is damaged, or it cannot be written. Nothing is lost.
        MachineError: The disk is full; nothing is lost.
    """
    table = store.table
    try:
        with _alone(table) as scratch:
            done = [_compact_teacher(table, teacher, scratch, range_rows) for teacher in teachers]
            compacted = [one for one in done if one is not None]
            if compacted:
                table.checkpoint()
            return compacted, _vacuum(table)
    except FAILURES as error:
        raise StoreError(
            f"{table.uri}: compaction failed ({one_line(error)})", do="mend this and run the same command again; no score is lost"
        ) from error


def is_compact(files: list[ScoreFile]) -> bool:
    """Whether these files of a teacher are what one compaction wrote, so that no key occurs twice."""
    counts = {file.place and file.place[1] for file in files}
    return len(counts) == 1 and None not in counts


def _compact_teacher(table: ScoreTable, teacher: str, scratch: Path, range_rows: int) -> Compaction | None:
    old = table.files(teacher)
    if not old or is_compact(old):
        return None
    rows = sum(file.rows for file in old)
    count = range_count(rows, range_rows)
    new = []
    for number, part in enumerate(
        sorted_ranges((part for file in old for part in table.disk.read(file)), rows, scratch, range_rows)
    ):
        if len(part):
            new.append(table.disk.write(teacher, part, f"{number:05d}-of-{count:05d}-"))
    kept = {file.path for file in old} & {file.path for file in new}
    table.commit([file for file in new if file.path not in kept], [file for file in old if file.path not in kept])
    left = sum(file.rows for file in new)
    return Compaction(
        teacher, left, rows - left, len(old), len(new), sum(file.size for file in old), sum(file.size for file in new)
    )


@contextmanager
def _alone(table: ScoreTable) -> Iterator[Path]:
    """The store without anybody else, and where to put temporary folders."""
    if table.disk.folder is None:
        yield Path(tempfile.gettempdir())
        return
    with score_lock.alone(table.disk.folder):
        for left in table.disk.folder.glob(f"{SCRATCH_PREFIX}*"):  # of a compaction that was killed
            shutil.rmtree(left)
        yield table.disk.folder


def _vacuum(table: ScoreTable) -> int:
    """Delete score files that the table does not list: replaced ones, and those of writers that were killed.

    Not deltalake's own vacuum: its full form deletes everything in the folder that the log does not know.
    """
    files = table.files()
    for file in files:
        # Also a guard: were the log's paths ever spelt otherwise than the folder's, needed files would look stray.
        if table.disk.folder is not None and not (table.disk.folder / file.path).is_file():
            raise unreadable(f"{table.uri}/{file.path}", FileNotFoundError())
    stray = table.disk.stray(files)
    for path in stray:
        path.unlink()
    return len(stray)
