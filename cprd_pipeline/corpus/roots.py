"""Where image files lie: under a folder of this machine, or under a URI that fsspec opens. Paths never leave it."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec

from cprd_pipeline.errors import CorpusError, MachineError, MissingDependencyError

Root = Path | str
"""A folder, or a URI such as s3://bucket/images as a string: a Path would swallow one of its slashes."""

# What a remote file alone is to blame for. Expired credentials come as PermissionError, and some stores' even as ValueError.
_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, UnicodeError)
_BRING_BACK = "bring the file back, or prepare the corpus again"
_CHECK_ACCESS = "check the network and the credentials"


def parse_root(place: str) -> Root:
    """A root from a setting: what holds `://` is a URI, everything else a folder.

    Raises:
        CorpusError: The URI names this machine's own disk, where links could lead out unseen.
    """
    if "://" not in place:
        return Path(place)
    if place.split("://")[0] in ("file", "local"):
        raise CorpusError(f"{place}: an address of this machine", do="write it as a plain path")
    return place.rstrip("/") if not place.endswith("://") else place


def read_inside(root: Root, path: str) -> bytes:
    """A file's bytes, if it lies inside the root.

    Args:
        root: The image root.
        path: Relative to it.

    Raises:
        CorpusError: The path leaves the root, also through a symbolic link, or there is no such file.
        MachineError: A remote root cannot be reached, or refuses access: that says nothing about the file.
        MissingDependencyError: The package for such URIs is not installed.
    """
    return _read_local(root, path) if isinstance(root, Path) else _read_remote(root, path)


def _read_local(root: Path, path: str) -> bytes:
    try:
        full = root / path
        if not _goes_straight_down(root, path):
            full = full.resolve()
            if not full.is_relative_to(root.resolve()):
                raise _leads_out(root, path)
        return full.read_bytes()
    except OSError as error:
        found = f"{root / path}: {error.strerror or error}"
    except (ValueError, RuntimeError) as error:
        # A NUL character, a lone surrogate, a loop of symbolic links.
        found = f"{path!r}: {error}"
    raise CorpusError(found, do=_BRING_BACK)


def _goes_straight_down(root: Path, path: str) -> bool:
    """Whether no step of the path is a link or leads up. Resolving the rest would take longer than reading a small file."""
    steps = path.split("/")
    if "\\" in path or any(step in ("", "..") for step in steps):
        return False
    place = str(root)
    for step in steps:
        place = f"{place}/{step}"
        if os.path.islink(place):  # noqa: PTH114  a Path for every step would cost what this saves
            return False
    return True


def _read_remote(root: str, path: str) -> bytes:
    # Object stores know no folders, but fsspec's file systems tidy dots up, each in its own way.
    if any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path:
        raise _leads_out(root, path)
    if "\0" in path:
        raise CorpusError(f"{root}/{path!r}: holds a NUL character", do=_BRING_BACK)
    files, base = _connect(root)
    try:
        content: bytes = files.cat_file(f"{base}/{path}" if base else path)
    except _MISSING as error:
        raise CorpusError(f"{root}/{path!s}: {_reason(error)}".encode(errors="replace").decode(), do=_BRING_BACK) from None
    except Exception as error:
        # Every kind of store raises its own errors for a lost connection or refused credentials.
        raise MachineError(
            f"{root}/{path}: {_reason(error)}",
            expected="a place that answers and lets us read",
            do=f"{_CHECK_ACCESS}, and run the same command again",
        ) from error
    return content


@lru_cache(maxsize=4)
def _connect(root: str) -> tuple[Any, str]:
    """The file system of a URI and the path of the URI in it; once a process."""
    try:
        files, base = fsspec.url_to_fs(root)
    except ImportError as error:
        raise MissingDependencyError(
            f"{root}: {_reason(error)}", expected="the package for such addresses", do="pip install 'cprd-pipeline[remote]'"
        ) from None
    except Exception as error:
        # No error of the corpus: those count as bad images, which the user may have left out.
        raise MachineError(
            f"{root}: {_reason(error)}", expected="an address such as s3://bucket/images", do=f"mend it, or {_CHECK_ACCESS}"
        ) from error
    return files, base.rstrip("/")


def _leads_out(root: Root, path: str) -> CorpusError:
    return CorpusError(f"{path}: leads out of {root}", expected="a path inside the image root")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
