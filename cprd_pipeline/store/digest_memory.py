"""Digests of large files, remembered between commands by what the file system says of the files.

A teacher of 15 GB takes 20 seconds to digest, and every command needs its fingerprint. As Git and DVC do, a file counts as
unchanged while its place, size, times of change and inode are: nobody but the clock sets a file's ctime.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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
    """The digest of files that were digested before and have not changed since; otherwise computed, and remembered.

    Args:
        kind: Names the way of computing, its version included: another kind is remembered apart.
        files: All that the digest is made of, in an order that stays.
        compute: Digests them.

    Raises:
        MachineError: The cache cannot be written.
    """
    before = [_state(file) for file in files]
    if sum(size for size, *_ in before) < WORTH_BYTES:
        return compute()
    memory = cache_folder() / "digests" / f"{json_digest([kind, [str(file.resolve()) for file in files]])}.json"
    if (known := _recall(memory, before)) is not None:
        return known
    began = time.time_ns()
    digest = compute()
    settled = all(began - max(modified, changed) > _SETTLED_NS for _, modified, changed, _ in before)
    if settled and [_state(file) for file in files] == before:
        write_json(memory, {"files": before, "digest": digest})
    return digest


def _state(file: Path) -> list[int]:
    """Size, time of the last writing, time of the last change of anything, inode."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _recall(memory: Path, files: list[list[int]]) -> str | None:
    """What is remembered of files in this very state; a damaged memory is none, and is written again."""
    try:
        entry = json.loads(memory.read_bytes())
        return str(entry["digest"]) if entry["files"] == files else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
