"""Carrying scores from one store to another: one plain Parquet file with the table's columns."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.atomic import CHECKSUM_BYTES, write_file
from cprd_pipeline.store.fingerprint import json_digest
from cprd_pipeline.store.schemas import check_schema
from cprd_pipeline.store.score_disk import check_fingerprint, one_line
from cprd_pipeline.store.score_files import DICTIONARY_BYTES
from cprd_pipeline.store.score_rows import COLUMNS, DIRECTIONS, SCHEMA, ScoreRows, from_arrow, sort_rows, to_arrow
from cprd_pipeline.store.score_sort import RANGE_ROWS, sorted_ranges
from cprd_pipeline.store.scores import ScoreStore

_GROUP_ROWS = 1 << 20

_DIGEST = "cprd_scores_digest"
"""Key of the file's metadata. Not Parquet's own checksums, which cover neither page headers nor the footer."""


class _RowsDigest:
    """Digest of rows in their order, whatever the pieces they come in."""

    def __init__(self) -> None:
        self._columns = [hashlib.blake2b(digest_size=CHECKSUM_BYTES) for _ in SCHEMA]

    def add(self, teacher: str, rows: ScoreRows) -> None:
        """The next rows."""
        keys = (rows.images[rows.image], rows.captions[rows.caption], rows.direction)
        content = [f"{teacher}\n".encode() * len(rows), *(key.tobytes() for key in keys), rows.scores.tobytes()]
        for digest, column in zip(self._columns, content, strict=True):
            digest.update(column)

    def hex(self) -> str:
        """Of all rows so far."""
        return json_digest([digest.hexdigest() for digest in self._columns])


class Imported(NamedTuple):
    """What became of the rows of an imported file.

    Args:
        new: Keys that the store did not have.
        same: Keys that it had, with the same score; and those that the file itself names again.
        conflicting: Keys that it had with another score.
        lowered: Those of them where the file's score is the lower one, so that it counts from now on.
    """

    new: int
    same: int
    conflicting: int
    lowered: int


def export_scores(store: ScoreStore, target: Path, teachers: list[str], range_rows: int = RANGE_ROWS) -> int:
    """Write scores to one Parquet file: by teacher, image, caption; of a double key the lowest score.

    Args:
        store: The score store.
        target: The file; it must not be there yet. Its folder holds temporary files too if there are many scores.
        teachers: Fingerprints, in the order of the file.
        range_rows: Rows in memory at once.

    Returns:
        How many rows were written.

    Raises:
        StoreError: The target is there already, or a file of the store is damaged; no file is left then.
        MachineError: The disk is full; no file is left then.
    """
    if target.exists():
        raise StoreError(f"{target}: there is a file already", do="name a new one")
    written, digest = 0, _RowsDigest()

    def write(path: Path) -> None:
        nonlocal written
        with pq.ParquetWriter(
            path,
            SCHEMA,
            compression="zstd",
            use_dictionary=SCHEMA.names[:-1],
            dictionary_pagesize_limit=DICTIONARY_BYTES,
            column_encoding={"score": "BYTE_STREAM_SPLIT"},
        ) as file:
            for teacher in teachers:
                for rows in _sorted(store, teacher, target.absolute().parent, range_rows):
                    for start in range(0, len(rows), _GROUP_ROWS):
                        file.write_table(_plain(teacher, rows.take(slice(start, start + _GROUP_ROWS))))
                    digest.add(teacher, rows)
                    written += len(rows)
            file.add_key_value_metadata({_DIGEST: digest.hex()})

    with store.shared(make=False):
        write_file(target, write)
    return written


def _sorted(store: ScoreStore, teacher: str, scratch: Path, range_rows: int) -> Iterator[ScoreRows]:
    files = store.table.files(teacher)
    parts = (part for file in files for part in store.table.disk.read(file))
    return sorted_ranges(parts, sum(file.rows for file in files), scratch, range_rows)


def _plain(teacher: str, rows: ScoreRows) -> pa.Table:
    table = to_arrow(rows)
    return table.add_column(0, "teacher", pa.array([teacher] * len(rows), pa.string())).cast(SCHEMA)


def import_scores(store: ScoreStore, source: Path, block_rows: int = RANGE_ROWS) -> Imported:
    """Add the scores of an exported file that the store does not have; where both have one, the lower counts.

    The whole file is checked before anything is stored. A killed import goes on when it is run again.

    Args:
        store: The score store; made if it is not there.
        source: The file.
        block_rows: Rows in memory at once.

    Raises:
        StoreError: There is no such file, it is damaged or not an export, or a score is not finite: nothing is stored
            then. Or the store cannot be read or written.
    """
    try:
        check_schema(pq.read_schema(source).empty_table(), SCHEMA, str(source))
        with pq.ParquetFile(source, read_dictionary=SCHEMA.names[:-1]) as file:
            _check(file, source)
            parts = [_import_block(store, teacher, rows) for teacher, rows in _blocks(file, block_rows)]
    except FileNotFoundError:
        raise StoreError(f"{source}: there is no such file", do="name a file that `cprd-pipeline scores export` wrote") from None
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{source}: not a whole Parquet file ({one_line(error)})", do="export and copy it again") from error
    return Imported(*(sum(counts) for counts in zip(*parts, strict=True))) if parts else Imported(0, 0, 0, 0)


def _check(file: pq.ParquetFile, source: Path) -> None:
    digest = _RowsDigest()
    try:
        for teacher, rows in _blocks(file, _GROUP_ROWS):
            digest.add(teacher, rows)
        # A file that another program wrote with the right columns has none.
        written = (file.metadata.metadata or {}).get(_DIGEST.encode())
        if written not in (None, digest.hex().encode()):
            raise StoreError("its scores changed after it was written")
    except StoreError as error:
        raise StoreError(
            f"{source}: {error.found}", expected=error.expected, do="nothing of it was stored; export the scores again"
        ) from error


def _blocks(file: pq.ParquetFile, rows: int) -> Iterator[tuple[str, ScoreRows]]:
    """The file's rows, checked, at most `rows` of one teacher at a time."""
    for batch in file.iter_batches(batch_size=rows):
        table = pa.Table.from_batches([batch])
        if table["teacher"].null_count:
            raise StoreError(f"{table['teacher'].null_count:,} rows without a teacher", expected="no nulls")
        for teacher in sorted(table["teacher"].unique().to_pylist()):
            check_fingerprint(teacher)
            yield teacher, from_arrow(table.filter(pc.equal(table["teacher"], teacher)).select(COLUMNS))


def _import_block(store: ScoreStore, teacher: str, block: ScoreRows) -> Imported:
    """One teacher's rows; a direction at a time, since a lookup is of one."""
    rows = sort_rows([block])
    counts = np.zeros(3, dtype=np.int64)
    for number, direction in enumerate(DIRECTIONS):
        part = rows.take(rows.direction == number)
        if len(part):
            counts += _import_direction(store, teacher, direction, part)
    new, higher, lower = counts.tolist()
    return Imported(new, len(block) - new - higher - lower, higher + lower, lower)


def _import_direction(store: ScoreStore, teacher: str, direction: str, rows: ScoreRows) -> npt.NDArray[np.int64]:
    """How many keys are new, how many have a higher score than the store's, how many a lower one; int64 [3]."""
    known = store.known(teacher, direction, rows.images, rows.captions)
    codes = rows.image.astype(np.int64) * len(rows.captions) + rows.caption
    place = np.searchsorted(known.codes, codes)
    stored = np.full(len(rows), np.nan, dtype=np.float32)
    inside = place < len(known.codes)
    found = np.zeros(len(rows), dtype=np.bool_)
    found[inside] = known.codes[place[inside]] == codes[inside]
    stored[found] = known.scores[place[found]]
    lower = found & (rows.scores < stored)
    wanted = rows.take(~found | lower)
    store.append(teacher, direction, wanted.images[wanted.image], wanted.captions[wanted.caption], wanted.scores)
    return np.array([(~found).sum(), (found & (rows.scores > stored)).sum(), lower.sum()], dtype=np.int64)
