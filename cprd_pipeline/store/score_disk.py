"""The score store's data files where they lie: writing them whole, reading them with their checks."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.atomic import write_bytes
from cprd_pipeline.store.places import check_writable
from cprd_pipeline.store.score_files import content_digest, decode, digest_in, encode, place_in
from cprd_pipeline.store.score_rows import ScoreRows

_FINGERPRINT = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]*")
_DATA_FILES = "teacher=*/*.parquet"
_REASON_CHARACTERS = 200


class ScoreFile(NamedTuple):
    """A data file of the table.

    Args:
        path: Relative to the store.
        teacher: Whose scores it holds.
        size: Bytes.
        rows: Scores.
    """

    path: str
    teacher: str
    size: int
    rows: int

    @property
    def digest(self) -> str | None:
        """Digest that its bytes must have; None for a file of another writer."""
        return digest_in(self.path.rpartition("/")[2])

    @property
    def place(self) -> tuple[int, int] | None:
        """Which file of how many a compaction wrote; None for any other file."""
        return place_in(self.path.rpartition("/")[2])


class ScoreDisk:
    """The files of one store.

    Args:
        uri: Folder or object-store address.

    Raises:
        StoreError: As `local_folder`.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.folder = local_folder(uri)
        self._files: fs.FileSystem | None = None

    def write(self, teacher: str, rows: ScoreRows, prefix: str = "") -> ScoreFile:
        """Put a file in place; it counts when the table lists it.

        Args:
            teacher: Fingerprint.
            rows: Sorted rows.
            prefix: Of its name, before the digest.

        Raises:
            StoreError: The fingerprint cannot be a folder's name.
            MachineError: The disk is full or the folder cannot be written.
        """
        check_fingerprint(teacher)
        content = encode(rows)
        path = f"teacher={teacher}/{prefix}{content_digest(content)}.parquet"
        if self.folder is not None:
            write_bytes(self.folder / path, content)
        else:
            # A write that no buffer holds reaches deltalake's stream as an Arrow buffer, which it refuses.
            with self._filesystem.open_output_stream(path, buffer_size=len(content) + 1) as stream:
                stream.write(content)
        return ScoreFile(path, teacher, len(content), len(rows))

    def read(self, file: ScoreFile) -> Iterator[ScoreRows]:
        """A file's rows, after its bytes were compared with the digest in its name.

        Raises:
            StoreError: It is gone, damaged, or holds what no score file holds.
        """
        with self.reading(file.path):
            content = self._content(file.path)
            wrong = _difference(file, content)
            if wrong:
                raise StoreError(wrong)
            yield from decode(content)

    def damage(self, file: ScoreFile) -> str:
        """What is wrong with a file; nothing if it is as it was written. A file without a digest is decoded."""
        try:
            content = self._content(file.path)
            wrong = _difference(file, content)
            if not wrong and file.digest is None:
                for _ in decode(content):
                    pass
        except (StoreError, OSError, pa.ArrowException) as error:
            return one_line(error)
        return wrong

    def directions(self, file: ScoreFile) -> list[str]:
        """The directions that occur in a file; of its columns only this one is read.

        Raises:
            StoreError: It cannot be read.
        """
        with self.reading(file.path), self._filesystem.open_input_file(file.path) as stream:
            column = pq.ParquetFile(stream, read_dictionary=["direction"]).read(columns=["direction"])["direction"]
            return [str(name) for name in column.unique().to_pylist()]

    def row_count(self, path: str) -> int:
        """Rows of a file by its own footer.

        Raises:
            StoreError: It cannot be read.
        """
        with self.reading(path), self._filesystem.open_input_file(path) as stream:
            return int(pq.ParquetFile(stream).metadata.num_rows)

    def has_files(self) -> bool:
        """Whether any data file lies in the folder; for an object store False."""
        return self.folder is not None and any(self.folder.glob(_DATA_FILES))

    def stray(self, listed: Iterable[ScoreFile]) -> list[Path]:
        """Data files that no table lists: replaced ones, or of writers that were killed; for an object store none."""
        if self.folder is None:
            return []
        return sorted(set(self.folder.glob(_DATA_FILES)) - {self.folder / file.path for file in listed})

    def _content(self, path: str) -> pa.Buffer:
        with self._filesystem.open_input_file(path) as stream:
            return stream.read_buffer()

    @property
    def _filesystem(self) -> fs.FileSystem:
        if self._files is None:
            if self.folder is not None:
                self._files = fs.SubTreeFileSystem(str(self.folder), fs.LocalFileSystem())
            else:
                from deltalake.fs import DeltaStorageHandler

                self._files = fs.PyFileSystem(DeltaStorageHandler(self.uri))
        return self._files

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """Turn what a library says about a file into the user's sentence."""
        try:
            yield
        except (StoreError, OSError, pa.ArrowException) as error:
            raise unreadable(f"{self.uri}/{path}", error) from error


def check_store_place(uri: str) -> None:
    """Refuse a store that is yet to be made where none can be; of one that is there, a run that buys nothing only reads.

    Raises:
        StoreError: As `local_folder`.
        MachineError: The folder cannot be written.
    """
    folder = local_folder(uri)
    if folder is not None and not (folder / "_delta_log").is_dir():
        check_writable(folder / "_delta_log", f"store={uri}")


def check_fingerprint(teacher: str) -> None:
    """Refuse what cannot be the name of a teacher's folder.

    Raises:
        StoreError: It is empty or has other characters than fingerprints have.
    """
    if not _FINGERPRINT.fullmatch(teacher):
        raise StoreError(f"the teacher {teacher!r}", expected="a fingerprint of letters, digits, dots, dashes and underscores")


def _difference(file: ScoreFile, content: pa.Buffer) -> str:
    if content.size != file.size:
        return f"{content.size:,} bytes instead of {file.size:,}"
    if file.digest not in (None, content_digest(content)):
        return "its bytes changed after it was written"
    if file.digest is not None and not file.path.startswith(f"teacher={file.teacher}/"):
        return f"listed under the teacher {file.teacher}"
    return ""


def unreadable(what: str, error: Exception) -> StoreError:
    """The user's sentence for a data file that cannot be read."""
    return StoreError(
        f"{what}: the score store cannot be read ({one_line(error)})",
        do="restore the damaged or missing file (`cprd-pipeline scores verify` names them all); scores that are gone "
        "must be bought again",
    )


def one_line(error: Exception) -> str:
    """What a library says, short: Delta's messages may hold whole structures."""
    if isinstance(error, FileNotFoundError):
        return "the file is gone"
    text = str(error).strip().split("\n", 1)[0]
    return text if len(text) <= _REASON_CHARACTERS else f"{text[:_REASON_CHARACTERS]}..."


def local_folder(uri: str) -> Path | None:
    """The folder that an address names; None for an object store.

    Raises:
        StoreError: deltalake would look for the table's log in another folder.
    """
    if "://" not in uri:
        return _taken_literally(Path(uri))
    parts = urlsplit(uri)
    return _taken_literally(Path(url2pathname(parts.path))) if parts.scheme == "file" else None


def _taken_literally(folder: Path) -> Path:
    """The folder itself: deltalake 1.6.6 decodes local paths once too often, however they are quoted, and resolves links first."""
    path = str(folder.resolve())
    found = unquote(path, errors="surrogateescape")
    if found != path or "\\" in path:
        raise StoreError(
            f"{folder}: the score store would be looked for in {found.replace(chr(92), '/')}",
            expected="a path without backslashes and without percent signs before two hex digits",
            do="rename that folder, or name another one for the store",
        )
    return folder
