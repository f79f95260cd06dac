"""Where an output may lie: never in the place of anything that no stage of ours wrote.

Looked at before a stage works: a folder that cannot be written, or must not be replaced, costs a user nothing then.
"""

import json
import os
from pathlib import Path

from cprd_pipeline.errors import MachineError, StoreError

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
    check_writable(target)
    another = "name another `output` in the settings"
    if target.exists() and not target.is_dir():
        raise StoreError(f"{target}: a file lies where a {kind} folder is to be written", do=another)
    if target.is_dir() and not (target / MANIFEST).exists() and (found := sorted(entry.name for entry in target.iterdir())):
        raise StoreError(
            f"{target}: has files that no stage wrote ({found[0]}), and a {kind} folder would replace them",
            expected="a new or empty folder, or an older output",
            do=another,
        )
    if (older := _kind_of(target)) not in (None, kind):
        raise StoreError(f"{target}: a {older} folder, which a {kind} folder would replace", do=another)


def check_writable(path: Path) -> None:
    """Refuse a path that no file can be created at.

    Raises:
        MachineError: Something above it is a file, or must not be written.
    """
    above = path.absolute().parent
    while not above.exists() and not above.is_symlink():
        above = above.parent
    if not above.is_dir():
        raise MachineError(f"{path}: {above} is not a folder", do="mend the path in the settings")
    if not os.access(above, os.W_OK | os.X_OK):
        raise MachineError(f"{path}: {above} cannot be written", do="mend its permissions, or the path in the settings")


def _kind_of(target: Path) -> str | None:
    """What a finished output is; None where there is none, or its manifest cannot be read."""
    try:
        kind = json.loads((target / MANIFEST).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return str(kind)
