"""Writing a file so that a reader, or a crash, sees either the whole of it or nothing."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cprd_pipeline.errors import MachineError
from cprd_pipeline.store.leftovers import make_aside, remove_leftovers

CHECKSUM_BYTES = 16

_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})
"""Why a file cannot have a second name: another disk, or a file system that knows none."""


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file of the same name in a temporary folder beside `path`, then sync and rename it.

    Apart, so that nobody who looks through a folder meets half a file. What killed writers left there is removed.

    Raises:
        MachineError: The disk is full or the folder cannot be written.
    """
    make_folder(path.parent)
    remove_leftovers(path.parent)
    try:
        aside = make_aside(path.parent)
        try:
            temporary = aside / path.name
            write(temporary)
            sync_file(temporary)
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise machine_error(error, path) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there yet.

    Raises:
        MachineError: One of them is a file, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise machine_error(error, folder) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    write_file(path, lambda temporary: _write_plain(temporary, content))


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically: sorted keys, two spaces, a final newline; NaN is refused."""
    write_bytes(path, (json.dumps(content, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())


def _write_plain(path: Path, content: bytes) -> None:
    # A plain write rather than Path.write_bytes: a short write on a full disk must raise here.
    with path.open("wb") as file:
        file.write(content)
        file.flush()


def sync_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (renames) to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(path: Path) -> str:
    """BLAKE2b of a file's bytes, 16 bytes as 32 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=CHECKSUM_BYTES)).hexdigest()


def place_folder(source: Path, target: Path) -> None:
    """Put a finished folder in place, replacing an older one; `source` stays, and on the same disk shares its files.

    A crash leaves either the old folder, or none, or the new one. A link to a folder, on a larger disk say, stays a link.
    """
    target = target.resolve()
    make_folder(target.parent)
    retired, staged = target.with_name(f".{target.name}.old"), target.with_name(f".{target.name}.new")
    try:
        for left in (retired, staged):
            shutil.rmtree(left, ignore_errors=True)
        _link_folder(source, staged)
        if target.exists():
            os.rename(target, retired)
        os.rename(staged, target)
        sync_folder(target.parent)
    except OSError as error:
        shutil.rmtree(staged, ignore_errors=True)
        raise machine_error(error, target) from error
    shutil.rmtree(retired, ignore_errors=True)


def _link_folder(source: Path, target: Path) -> None:
    target.mkdir()
    for entry in source.iterdir():
        if entry.is_dir():
            _link_folder(entry, target / entry.name)
        else:
            _link(entry, target / entry.name)
    sync_folder(target)


def _link(source: Path, target: Path) -> None:
    """A second name of a file; a copy on another disk, or where the file system has no such names."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, target)
        sync_file(target)


def machine_error(error: OSError, path: Path) -> MachineError:
    """The user's sentence for an operating system's refusal."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(
            f"{path}: the disk is full", do="free some space and run the same command again; finished parts are kept"
        )
    return MachineError(f"{path}: {error.strerror or error}", do="mend this and run the same command again")
