"""Folders for half-written files, named after their writer, so that what a killed writer leaves behind can be told and removed.

A process number means something only among the processes that one running kernel numbers together, hence the name says which
these are: on a shared disk a writer elsewhere is never taken for dead by its number, only by its age.
"""

import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path

ABANDONED_AFTER_S = 86_400.0
"""Nothing is written for so long without a single byte: what another machine left is removed after this many seconds."""

_NAME = re.compile(r"\.tmp-(?P<numbered_by>[0-9a-f]{8})-(?P<process>\d+)-.+")


def make_aside(folder: Path) -> Path:
    """A new, empty folder in `folder` for a file of this process."""
    return Path(tempfile.mkdtemp(prefix=f".tmp-{_numbered_by()}-{os.getpid()}-", dir=folder))


@cache
def remove_leftovers(folder: Path) -> None:
    """Remove what dead writers left in a folder; looks once a process, since a cache may have very many files.

    Args:
        folder: Where files are written.
    """
    for path in folder.glob(".tmp-*"):
        if (found := _NAME.fullmatch(path.name)) and _is_abandoned(path, found["numbered_by"], int(found["process"])):
            shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(path: Path, numbered_by: str, process: int) -> bool:
    if numbered_by == _numbered_by():
        return not _is_alive(process)
    try:
        newest = max(file.stat().st_mtime for file in (path, *path.iterdir()))
    except OSError:  # its writer, or another sweeper, has just removed it
        return False
    return time.time() - newest > ABANDONED_AFTER_S


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


@cache
def _numbered_by() -> str:
    """Names this boot of this machine and, in a container, its own numbering of processes: 8 hex digits."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        numbering = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # not Linux
        boot, numbering = platform.node(), 0
    return hashlib.blake2b(f"{boot} {numbering}".encode(), digest_size=4).hexdigest()
