"""What the score store holds, and whether its bytes are still those that were written."""

import tempfile
from pathlib import Path
from typing import NamedTuple

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.score_compaction import is_compact
from cprd_pipeline.store.score_disk import ScoreFile, one_line
from cprd_pipeline.store.score_sort import RANGE_ROWS, sorted_ranges
from cprd_pipeline.store.score_table import FAILURES
from cprd_pipeline.store.scores import ScoreStore


class TeacherScores(NamedTuple):
    """What the store holds of one teacher.

    Args:
        teacher: Fingerprint.
        directions: Directions that occur, ascending.
        rows: Scores, double keys included.
        doubled: Rows whose key another row has too (the lower score counts).
        files: Data files.
        bytes: Their bytes.
    """

    teacher: str
    directions: list[str]
    rows: int
    doubled: int
    files: int
    bytes: int


class Check(NamedTuple):
    """What `verify` found.

    Args:
        files: Files of the table.
        rows: Their scores.
        bytes: Their bytes.
        undigested: Files of other writers: whole as far as they decode, but no digest says what they must be.
        damaged: Files that are gone or changed, each with what is wrong.
        stray: Score files in the folder that the table does not list: replaced ones, or of a writer that was killed.
    """

    files: int
    rows: int
    bytes: int
    undigested: int
    damaged: list[tuple[ScoreFile, str]]
    stray: int


def teachers_in(store: ScoreStore) -> dict[str, list[ScoreFile]]:
    """The files of each teacher, by fingerprint, ascending.

    Raises:
        StoreError: There is no score store, or its log is damaged.
    """
    if not store.table.exists():
        raise StoreError(
            f"{store.uri}: there is no score store", do="name another one with --store, or run `cprd-pipeline score-teacher`"
        )
    found: dict[str, list[ScoreFile]] = {}
    for file in store.table.files():
        found.setdefault(file.teacher, []).append(file)
    return found


def summary(store: ScoreStore, range_rows: int = RANGE_ROWS) -> list[TeacherScores]:
    """What each teacher has. Double keys of files that are not compact are counted by sorting them all.

    Raises:
        StoreError: There is no store, or a file is damaged.
    """
    with store.shared(make=False):
        return [_teacher(store, teacher, files, range_rows) for teacher, files in teachers_in(store).items()]


def _teacher(store: ScoreStore, teacher: str, files: list[ScoreFile], range_rows: int) -> TeacherScores:
    rows = sum(file.rows for file in files)
    directions = sorted({direction for file in files for direction in store.table.disk.directions(file)})
    distinct = rows
    if not is_compact(files):
        parts = (part for file in files for part in store.table.disk.read(file))
        distinct = sum(map(len, sorted_ranges(parts, rows, Path(tempfile.gettempdir()), range_rows)))
    return TeacherScores(teacher, directions, rows, rows - distinct, len(files), sum(file.size for file in files))


def verify(store: ScoreStore) -> Check:
    """Compare every file of the table with its size and digest; files of other writers are decoded.

    Raises:
        StoreError: There is no store, or its log is damaged. Damaged files are not raised but returned.
    """
    with store.shared(make=False):
        files = [file for of_teacher in teachers_in(store).values() for file in of_teacher]
        damaged = [(file, wrong) for file in files if (wrong := store.table.disk.damage(file))]
        return Check(
            files=len(files),
            rows=sum(file.rows for file in files),
            bytes=sum(file.size for file in files),
            undigested=sum(file.digest is None for file in files),
            damaged=damaged,
            stray=len(store.table.disk.stray(files)),
        )


def forget(store: ScoreStore, damaged: list[ScoreFile]) -> None:
    """Take damaged files out of the table, so that their scores are bought again; `compact` deletes what is left of them.

    Raises:
        StoreError: Somebody else has replaced one of them.
    """
    try:
        with store.shared(make=False):
            store.table.commit([], damaged)
    except FAILURES as error:
        raise StoreError(
            f"{store.uri}: the list of files cannot be written ({one_line(error)})", do="mend this and try again"
        ) from error
