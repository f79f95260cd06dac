"""Which index files stay in the cache: those that were used last. A file may be as large as its vectors, and can be made again."""

import os
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

KEPT = 8
"""Indexes that stay: two directions of two splits, for two encoders or settings that are compared."""


def mark_used(record: Path) -> None:
    """Note that an index was used just now.

    Args:
        record: The `.json` beside its file.
    """
    with suppress(PermissionError):  # in somebody else's cache
        os.utime(record)


def remove_oldest(made: Path) -> int:
    """Remove indexes beyond `KEPT`, those first that were not used for longest; returns the bytes that this freed.

    A process that has such a file open reads on in it. A file without its record, which a killed run left, goes like the others.

    Args:
        made: The file that was made just now, which stays whatever the clocks say; the others lie beside it.
    """
    indexes = defaultdict[str, list[Path]](list)
    for path in [*made.parent.glob("*.json"), *made.parent.glob("*.faiss")]:  # records first: without one a file does not exist
        if path.stem != made.stem:
            indexes[path.stem].append(path)
    by_use = sorted(indexes.values(), key=lambda paths: max(_used(path) for path in paths), reverse=True)
    return sum(_remove(path) for paths in by_use[KEPT - 1 :] for path in paths)


def _used(path: Path) -> float:
    with suppress(FileNotFoundError):  # another run is removing it
        return path.stat().st_mtime
    return 0.0


def _remove(path: Path) -> int:
    try:
        size = path.stat().st_size
        path.unlink()
    except (FileNotFoundError, PermissionError):
        return 0
    return size
