"""Digests of large files, remembered between commands by what the file system says of the files.

A teacher of 15 GB takes 20 seconds to digest, and every command needs its fingerprint. As Git and DVC do, a file counts as
unchanged while its place, size, times of change and inode are. Only for files that are written and then left alone, as weights
are: what somebody has mapped into memory may change without a sign, on a disk in memory for ever.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cprd_pipeline.errors import MachineError
from cprd_pipeline.store.atomic import checksum, write_json
from cprd_pipeline.store.fingerprint import json_digest
from cprd_pipeline.store.folder import cache_folder

WORTH_BYTES = 64 * 2**20
"""Files below this size in all are digested in less than a tenth of a second, and not remembered."""

# File systems count time in steps of up to two seconds: a file changed just now may change again within the same step.
_SETTLED_NS = 2_000_000_000


def remembered_checksum(file: Path) -> str:
    """`checksum` of a file, remembered where it is large."""
    return remembered_digest("checksum", [file], lambda: checksum(file))


def remembered_digest(kind: str, files: Sequence[Path], compute: Callable[[], str]) -> str:
    """The digest of files that were digested before and have not changed since; otherwise computed, and remembered if it can be.

    Args:
        kind: Names the way of computing, its version included: another kind is remembered apart.
        files: All that the digest is made of, in an order that stays.
        compute: Digests them, and says what is wrong with them.
    """
    before = _states(files)
    if before is None or sum(size for size, *_ in before) < WORTH_BYTES:
        return compute()
    places = [os.fsencode(file.resolve()).hex() for file in files]
    memory = cache_folder() / "digests" / f"{json_digest([kind, places])}.json"
    if (known := _recall(memory, before)) is not None:
        return known
    began = time.time_ns()
    digest = compute()
    settled = all(began - max(modified, changed) > _SETTLED_NS for _, modified, changed, _ in before)
    if settled and _states(files) == before:
        _remember(memory, {"files": before, "digest": digest})
    return digest


def _states(files: Sequence[Path]) -> list[list[int]] | None:
    """Size, time of the last writing, time of the last change of anything, and inode of each; None where one cannot be read."""
    try:
        return [_state(file) for file in files]
    except OSError:
        return None


def _state(file: Path) -> list[int]:
    handle = os.open(file, os.O_RDONLY)
    try:
        # What was written through a mapping gets its time here, and what is written so from now on another one.
        os.fsync(handle)
        found = os.fstat(handle)
    finally:
        os.close(handle)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _recall(memory: Path, files: list[list[int]]) -> str | None:
    """What is remembered of files in this very state; a damaged memory is none."""
    try:
        entry = json.loads(memory.read_bytes())
        return str(entry["digest"]) if entry["files"] == files else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(memory: Path, entry: dict[str, object]) -> None:
    try:
        write_json(memory, entry)
    except MachineError:
        # The digest is right without it. Who cannot do without the cache says what is wrong with it.
        return
