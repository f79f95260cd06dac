"""Who may touch the score store's files: writers and readers together, or one compaction alone."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.run_lock import NO_LOCKS

LOCK = "_writers.lock"
"""Lies in the store. Delta ignores names that begin with an underscore."""


@contextmanager
def shared(folder: Path, *, make: bool) -> Iterator[None]:
    """Hold the store against `compact`, beside any number of others; waits while a compaction runs.

    The kernel gives the lock up when a process dies, however it dies. On a file system that knows no locks nothing is held:
    `compact` refuses to work there.

    Args:
        folder: The store.
        make: Make the folder if it is not there: for writers. A reader may have no right to; where nobody ever
            wrote, there is nothing to hold.
    """
    if make:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT if make else os.O_RDONLY, 0o666)
    except OSError:
        if make:
            raise
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        os.close(handle)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the store against everybody.

    Raises:
        StoreError: Somebody writes or reads right now, or the file system cannot tell.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"{folder}: another process writes to the score store or reads it",
                expected="nobody else while files are replaced",
                do="wait until it is done, then run the same command again",
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise StoreError(
                f"{folder}: this file system knows no locks ({error.strerror})",
                expected="one that does, so that nobody reads or writes while files are replaced",
                do="compact a copy on another disk while nobody uses the store, and put it in the place of this one",
            ) from None
        yield
    finally:
        os.close(handle)
