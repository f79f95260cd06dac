"""Sorting more scores than memory holds: sorted runs on the disk, cut at the same image digests, joined range by range."""

import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from cprd_pipeline.store.atomic import machine_error
from cprd_pipeline.store.fingerprint import DigestArray
from cprd_pipeline.store.score_files import decode, encode
from cprd_pipeline.store.score_rows import ScoreRows, sort_rows

RANGE_ROWS = 1 << 22
"""Rows that are sorted at once, hence rows of a compacted file: the more there are, the less the digests cost a pair.
A row takes about 200 bytes of memory while it is sorted."""

SCRATCH_PREFIX = "_sorting-"
"""Of the folder with the runs; Delta ignores names that begin with an underscore."""


def range_count(rows: int, range_rows: int) -> int:
    """Into how many ranges `sorted_ranges` cuts so many rows."""
    return max(1, math.ceil(rows / range_rows))


def sorted_ranges(parts: Iterable[ScoreRows], rows: int, scratch: Path, range_rows: int = RANGE_ROWS) -> Iterator[ScoreRows]:
    """The scores of one teacher, sorted by (image, caption, direction), of double keys the lowest score.

    Args:
        parts: The scores in any order; read once.
        rows: How many there are.
        scratch: Folder for a temporary one with the runs, about 25 bytes a row; not used if all rows are one range.
        range_rows: About how many rows are in memory at once.

    Yields:
        Consecutive ranges of image digests, `range_count(rows, range_rows)` of them; some may be empty.

    Raises:
        MachineError: The disk is full.
    """
    count = range_count(rows, range_rows)
    if count == 1:
        gathered = list(parts)
        if gathered:
            yield sort_rows(gathered)
        return
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=scratch) as folder:
        runs = _write_runs(parts, Path(folder), count, range_rows)
        for number in range(count):
            pieces = [Path(folder, f"{run}-{number}.parquet") for run in range(runs)]
            found = [rows for piece in pieces if piece.exists() for rows in decode(piece.read_bytes())]
            for piece in pieces:
                piece.unlink(missing_ok=True)
            yield sort_rows(found) if found else _nothing()


def _write_runs(parts: Iterable[ScoreRows], folder: Path, count: int, range_rows: int) -> int:
    waiting: list[ScoreRows] = []
    runs = 0
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= range_rows:
            _write_run(waiting, folder, runs, count)
            waiting, runs = [], runs + 1
    if waiting:
        _write_run(waiting, folder, runs, count)
        runs += 1
    return runs


def _write_run(parts: list[ScoreRows], folder: Path, run: int, count: int) -> None:
    """One file for each range, so that joining a range reads nothing else."""
    rows = sort_rows(parts)
    ends = np.searchsorted(_range_of(rows.images, count)[rows.image], np.arange(count), side="right")
    start = 0
    for number, end in enumerate(ends.tolist()):
        if end > start:
            path = folder / f"{run}-{number}.parquet"
            try:
                path.write_bytes(encode(sort_rows([rows.take(slice(start, end))])))
            except OSError as error:
                raise machine_error(error, path) from error
        start = end


def _range_of(images: DigestArray, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Range of each image digest: digests are evenly spread, so equal ranges of them hold about equally many rows."""
    leading = np.ascontiguousarray(images[:, :4]).view(">u4").ravel().astype(np.int64)
    return leading * count >> 32


def _nothing() -> ScoreRows:
    digests = np.empty((0, 16), dtype=np.uint8)
    rows = np.empty(0, dtype=np.int32)
    return ScoreRows(digests, digests, rows, rows, np.empty(0, dtype=np.int8), np.empty(0, dtype=np.float32))
