"""One process makes an output at a time: two that began with the same settings would do the same work in the same folder."""

import errno
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.atomic import machine_error

LOCK = "_run.lock"

# File systems that know no locks: there, two processes are only found out at the end.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP})


@dataclass
class _Held:
    """An open file with a lock, which the kernel gives up when the process ends, and how many writers here rely on it."""

    handle: int
    writers: int = 1


_held: dict[Path, _Held] = {}


def hold(state: Path, target: Path) -> None:
    """Hold a state folder until as many `let_go`, or the end of this process.

    Of processes that torchrun started the first one holds it for all.

    Args:
        state: The folder, which exists.
        target: The output that is made there, for the message.

    Raises:
        StoreError: Another process holds it.
        MachineError: The folder cannot be written.
    """
    path = (state / LOCK).absolute()
    if os.environ.get("RANK", "0") != "0":
        return
    if path in _held:
        _held[path].writers += 1
        return
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise machine_error(error, path) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StoreError(
            f"{target}: another process is making it, with the same settings",
            do="wait until it is done, or stop it; then run the same command again",
        ) from None
    except OSError as error:
        os.close(handle)
        if error.errno not in _NO_LOCKS:
            raise machine_error(error, path) from error
        return
    _held[path] = _Held(handle)


def let_go(state: Path) -> None:
    """Give a folder up that this process held, if it did."""
    path = (state / LOCK).absolute()
    if (held := _held.get(path)) is None:
        return
    held.writers -= 1
    if not held.writers:
        del _held[path]
        os.close(held.handle)
