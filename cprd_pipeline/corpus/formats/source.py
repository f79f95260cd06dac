"""A path that the user named as annotations: read once, checked once, shared by recognition and reading."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cprd_pipeline.corpus.formats.records import Records
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError

_HEAD = 65_536
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class EncodingError(CorpusError):
    """A text that is not UTF-8."""


class SourceFile:
    """One file or folder of annotations.

    Args:
        path: Where it lies.
        split: The split that the settings say all of it belongs to; None when they say nothing.
        setting: The one that names it, for messages.

    Raises:
        CorpusError: There is no such file, it is empty, or a Git LFS pointer.
    """

    def __init__(self, path: Path, split: str | None = None, setting: str = "files.paths") -> None:
        self.path = path
        self.split = split
        self._setting = setting
        self.is_folder = path.is_dir()
        if not self.is_folder:
            self._check()

    def _check(self) -> None:
        if not self.head:
            raise CorpusError(f"{self.path}: the file is empty", expected="annotations", do="fetch the file again")
        if self.head.startswith(b"version https://git-lfs"):
            raise CorpusError(
                f"{self.path}: a Git LFS pointer, not the annotations", do="fetch the file itself with `git lfs pull`"
            )

    @cached_property
    def head(self) -> bytes:
        """The first 64 KiB; nothing of a folder."""
        if self.is_folder:
            return b""
        try:
            with self.path.open("rb") as file:
                return file.read(_HEAD)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from None

    @cached_property
    def text(self) -> str:
        """The whole file as text, without a byte order mark.

        Raises:
            CorpusError: A folder.
            EncodingError: Not UTF-8; the message names the line.
        """
        if self.is_folder:
            raise CorpusError(f"{self.path}: a folder", expected="a file", do=f"mend {self._setting} in the settings")
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise self._unreadable(error) from None
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            # The byte order mark is cut off before error.start is counted.
            line = content[: error.start + 3].count(b"\n") + 1
            run = _length_of_run(error.object, error.start)
            found = f"{run:,} bytes of 0x{error.object[error.start]:02X}" if run > 1 else f"byte 0x{error.object[error.start]:02X}"
            likely = "UTF-16" if content.startswith(_UTF16_MARKS) else "LATIN1"
            raise EncodingError(
                f"{self.path}: line {line} is not UTF-8 ({found})",
                expected="UTF-8 text",
                do=f"convert it to UTF-8 (for example iconv -f {likely} -t UTF-8), or fetch it again if it is damaged",
            ) from None

    @cached_property
    def json(self) -> Any:
        """The whole file as JSON.

        Raises:
            CorpusError: Not JSON; the message names line and column.
        """
        try:
            return json.loads(self.text)
        except json.JSONDecodeError as error:
            raise CorpusError(
                f"{self.path}: not valid JSON at line {error.lineno}, column {error.colno}",
                do="fetch the file again; it may be cut off",
            ) from None
        except (ValueError, RecursionError) as error:
            # A number with thousands of digits, brackets nested by the thousand.
            raise CorpusError(f"{self.path}: not valid JSON ({type(error).__name__})", do="fetch the file again") from None

    def forget(self) -> None:
        """Give back the memory of what was read."""
        for name in ("head", "text", "json"):
            self.__dict__.pop(name, None)

    def _unreadable(self, error: Exception) -> CorpusError:
        found = getattr(error, "strerror", None) or error
        wanted = "a file or folder of annotations" if self._setting == "files.paths" else "a file"
        return CorpusError(f"{self.path}: {found}", expected=wanted, do=f"mend {self._setting} in the settings")


def _length_of_run(content: bytes, start: int) -> int:
    """How often the byte at `start` is repeated from there."""
    rest = content[start:]
    return len(rest) - len(rest.lstrip(rest[:1]))


@dataclass(frozen=True)
class Format:
    """A source format.

    Args:
        name: As `source` names it in the settings.
        title: What users call it.
        refuse: Why a file is not of this format; empty when it is. May raise CorpusError, which then is the reason.
        read: Records of all files together.
    """

    name: str
    title: str
    refuse: Callable[[SourceFile, FilesSettings], str]
    read: Callable[[Sequence[SourceFile], FilesSettings], Records]
