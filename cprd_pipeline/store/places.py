"""Where an output may lie: never in the place of anything that no stage of ours wrote.

Looked at before a stage works: a folder that cannot be written, or must not be replaced, costs a user nothing then.
"""

import errno
import json
import os
from pathlib import Path

from cprd_pipeline.errors import MachineError, StoreError
from cprd_pipeline.store.leftovers import make_aside

MANIFEST = "_manifest.json"
"""The file that makes a folder one of ours."""


def check_output_place(target: Path, kind: str) -> None:
    """Refuse a target whose place is taken by something else than an older output of the same kind.

    Args:
        target: Where a finished folder is to lie; nothing, an empty folder or an older output may lie there now.
        kind: What it will be.

    Raises:
        StoreError: A file, a folder of the user's, or an output of another kind lies there.
        MachineError: The folder around it cannot be written.
    """
    check_writable(target.resolve(), str(target))  # a link is written through
    another = "name another `output` in the settings"
    if target.exists() and not target.is_dir():
        raise StoreError(f"{target}: a file lies where {named_kind(kind)} is to be written", do=another)
    if target.is_dir() and not (target / MANIFEST).exists() and (found := sorted(entry.name for entry in target.iterdir())):
        raise StoreError(
            f"{target}: has files that no stage wrote ({found[0]}), and {named_kind(kind)} would replace them",
            expected="a new or empty folder, or an older output",
            do=another,
        )
    if (older := _kind_of(target)) not in (None, kind):
        raise StoreError(f"{target}: {named_kind(older)}, which {named_kind(kind)} would replace", do=another)


def check_file_place(target: Path) -> None:
    """Refuse a target that no file can be written to.

    Raises:
        StoreError: It is a folder.
        MachineError: As `check_writable`.
    """
    if target.is_dir():
        raise StoreError(f"{target}: a folder lies where a file is to be written", do="mend the path in the settings")
    check_writable(target)


def check_cache(folder: Path) -> None:
    """Refuse a cache that cannot be written.

    Raises:
        MachineError: As `check_writable`; the message names CPRD_CACHE.
    """
    named = f"CPRD_CACHE={folder}" if "CPRD_CACHE" in os.environ else str(folder)
    check_writable(folder / "state", named, "name another folder in the variable CPRD_CACHE")


def check_writable(path: Path, named: str = "", otherwise: str = "mend the path in the settings") -> None:
    """Refuse a path that nothing can be created at.

    Args:
        path: A file or a folder, there or not.
        named: How the user named it, for the message; the path itself when empty.
        otherwise: What else to do than to mend permissions, for the message.

    Raises:
        MachineError: Something above it is a file, or must not be written.
    """
    above = path.absolute().parent
    while not above.exists() and not above.is_symlink():
        above = above.parent
    if not above.is_dir():
        raise MachineError(f"{named or path}: {above} is not a folder", do=otherwise)
    try:
        # Tried, not asked: of /proc and of disks mounted read-only the permissions say nothing.
        make_aside(above).rmdir()
    except OSError as error:
        # /proc says that there is no such file, which explains nothing.
        why = "" if error.errno == errno.ENOENT else f" ({error.strerror})"
        raise MachineError(f"{named or path}: {above} cannot be written{why}", do=f"mend its permissions, or {otherwise}") from None


def named_kind(kind: str) -> str:
    """A kind of folder for a sentence: `an evaluation folder`."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} folder"


def _kind_of(target: Path) -> str | None:
    """What a finished output is; None where there is none, or its manifest cannot be read."""
    try:
        kind = json.loads((target / MANIFEST).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return str(kind)
