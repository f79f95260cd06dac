"""What Parquet tables and saved datasets have in common: Arrow types of an image column."""

from pathlib import Path

import pyarrow as pa

NO_BYTES = "the table has no bytes for this image"


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds files' bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_struct(kind: pa.DataType) -> bool:
    """Whether a column holds structs."""
    return bool(pa.types.is_struct(kind))


def stamp(file: Path) -> tuple[int, int]:
    """Size and time of a file: what is kept of it is not taken for another file's at the same place.

    Raises:
        OSError: It is gone.
    """
    found = file.stat()
    return found.st_size, found.st_mtime_ns
