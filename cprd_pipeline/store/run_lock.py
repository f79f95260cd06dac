"""One process makes an output at a time: two that began with the same settings would do the same work in the same folder."""

import errno
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.atomic import machine_error, make_folder

LOCK = "_run.lock"

NO_LOCKS = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP})
"""What file systems say that know no locks. There, two processes that make one output are only found out at the end."""

_TRIES = 5


@dataclass
class _Held:
    """An open file with a lock, which the kernel gives up when the process ends, and how many writers here rely on it."""

    handle: int
    writers: int = 1


_held: dict[Path, _Held] = {}


def hold(state: Path, target: Path) -> None:
    """Hold a state folder, made if need be, until as many `let_go`, or the end of this process.

    Args:
        state: The folder.
        target: The output that is made there, for the message.

    Raises:
        StoreError: Another process holds it.
        MachineError: The folder cannot be written.
    """
    path = (state / LOCK).absolute()
    if path in _held:
        _held[path].writers += 1
        return
    for _ in range(_TRIES):
        handle = _locked(path, target)
        if _is_there(path, handle):
            _held[path] = _Held(handle)
            return
        os.close(handle)  # Whoever was done with the folder has just removed it.
    raise StoreError(f"{state}: is removed again and again", do="see which other process works there")


def _locked(path: Path, target: Path) -> int:
    """The open file, its lock taken where the file system knows locks."""
    make_folder(path.parent)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise machine_error(error, path) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StoreError(
            f"{target}: another process is at work with the same settings and inputs",
            do="wait until it is done, or stop it; then run the same command again",
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(handle)
            raise machine_error(error, path) from error
    return handle


def _is_there(path: Path, handle: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


def let_go(state: Path) -> None:
    """Give a folder up that this process held, if it did."""
    path = (state / LOCK).absolute()
    if (held := _held.get(path)) is None:
        return
    held.writers -= 1
    if not held.writers:
        del _held[path]
        os.close(held.handle)
