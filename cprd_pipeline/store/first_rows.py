"""The beginnings of files as tables for a terminal of 80 columns: first rows of Parquet, first tensors of a model."""

import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from rich.cells import cell_len, set_cell_size

from cprd_pipeline.store.fingerprint import DIGEST_BYTES

WIDTH = 80

_ROWS = 5
_ITEMS = 3  # shown of a list
_DIGITS = 12  # shown of a digest, hexadecimal
_CHARACTERS = 100  # kept of a text, more than any line takes
_MANY_COLUMNS = 7  # so many and more stand below each other, three rows beside them
_ROWS_BESIDE = 3


class FirstRows(NamedTuple):
    """A file's beginning.

    Args:
        columns: Their names.
        rows: Cells as they are shown.
    """

    columns: list[str]
    rows: list[list[str]]


def first_rows_of_table(path: Path) -> FirstRows:
    """The first rows of a Parquet file; no more of it is read than they need."""
    # Whole column chunks otherwise, which hold gigabytes where pictures are.
    with pq.ParquetFile(path, buffer_size=2**16, pre_buffer=False) as file:
        names = list(file.schema_arrow.names)
        batch = next(file.iter_batches(batch_size=_ROWS, use_threads=False), None)
    rows = [] if batch is None else [[show(value) for value in row.values()] for row in batch.to_pylist()]
    return FirstRows(names, rows)


def first_tensors(path: Path) -> FirstRows:
    """The first tensors of a safetensors file, by its header alone."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    tensors = sorted(header.items(), key=lambda item: item[1]["data_offsets"])[:_ROWS]
    return FirstRows(["tensor", "type", "shape"], [[name, it["dtype"], " x ".join(map(str, it["shape"]))] for name, it in tensors])


def first_vectors(path: Path) -> FirstRows:
    """The first vectors of a NumPy file [N, D]."""
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    return FirstRows(["row", "vector"], [[str(row), show(vector.tolist())] for row, vector in enumerate(vectors[:_ROWS])])


def show(value: Any) -> str:
    """A cell: the beginning of a digest, the number of other bytes, lists shortened, nothing that moves the cursor."""
    if value is None:
        return "-"
    if isinstance(value, bytes):
        return f"{value.hex()[:_DIGITS]}…" if len(value) == DIGEST_BYTES else f"{len(value):,} bytes"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        shown = [show(item) for item in value[:_ITEMS]]
        return f"[{', '.join(shown)}]" if len(value) <= _ITEMS else f"{len(value)}: {', '.join(shown)}, …"
    text = str(value)
    short = text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in short)


def render(title: str, content: FirstRows) -> str:
    """Lines of at most `WIDTH` columns; a table of many columns is turned, its rows side by side.

    Args:
        title: Printed above.
        content: What to show.
    """
    lines = [content.columns, *content.rows]
    if len(content.columns) >= _MANY_COLUMNS:
        lines = [list(line) for line in zip(*lines[: 1 + _ROWS_BESIDE], strict=True)]
    widths = _widths(lines)
    cut = ["  ".join(map(_fit, line, widths)).rstrip() for line in lines]
    return "\n".join([_fit(title, WIDTH).rstrip(), *cut]) + "\n"


def _widths(lines: list[list[str]]) -> list[int]:
    """Columns' widths: as wide as their cells, the widest ones cut evenly until all fit."""
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    room = WIDTH - 2 * (len(widths) - 1)
    most = WIDTH
    while sum(min(width, most) for width in widths) > room:
        most -= 1
    return [min(width, most) for width in widths]


def _fit(cell: str, width: int) -> str:
    return set_cell_size(cell, width) if cell_len(cell) <= width else f"{set_cell_size(cell, width - 1)}…"
