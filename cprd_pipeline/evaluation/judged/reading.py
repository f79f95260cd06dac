"""Files of judged sets as text, JSON objects or tables; every damage is refused with its place."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cprd_pipeline.errors import CorpusError

_LFS = b"version https://git-lfs"
_AGAIN = "fetch the file again; it may be cut off or damaged"


class Row(NamedTuple):
    """A line of a table.

    Args:
        where: File and line, for messages.
        cells: Its cells.
    """

    where: str
    cells: list[str]


def read_text(path: Path, what: str) -> str:
    """A UTF-8 file without its byte order mark.

    Args:
        path: The file.
        what: What it should be, for messages.

    Raises:
        CorpusError: No such file, a Git LFS pointer, or not UTF-8; the message names the line.
    """
    content = read_bytes(path, what)
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8", expected=what, do=_AGAIN
        ) from None


def read_bytes(path: Path, what: str) -> bytes:
    """A file's bytes.

    Raises:
        CorpusError: No such file, or a Git LFS pointer.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror or error}", expected=what, do="mend the path in the settings") from None
    if content.startswith(_LFS):
        raise CorpusError(f"{path}: a Git LFS pointer", expected=what, do="fetch the file itself with `git lfs pull`")
    return content


def read_object(path: Path, what: str) -> dict[str, Any]:
    """A JSON object with at least one key, none of them twice.

    Raises:
        CorpusError: Not such a file; the message names line and column, or the key.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise CorpusError(f"{path}: key {twice!r} occurs twice in one object", expected=what, do="remove one of the entries")
        return made

    try:
        root = json.loads(read_text(path, what), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path}: not JSON at line {error.lineno}, column {error.colno}", expected=what, do=_AGAIN) from None
    except RecursionError:
        raise CorpusError(f"{path}: JSON that is nested too deeply", expected=what) from None
    except ValueError:  # the only other one: Python reads no numbers of over 4,300 digits
        raise CorpusError(f"{path}: a number of thousands of digits", expected=what, do=_AGAIN) from None
    if not isinstance(root, dict) or not root:
        raise CorpusError(f"{path}: {_describe(root)}", expected=what)
    return root


def read_table(path: Path, what: str, delimiter: str, columns: Sequence[str], *, header: bool, quoted: bool) -> list[Row]:
    """The rows of a table; empty lines are passed over.

    Args:
        path: The file.
        what: What it should be, for messages.
        delimiter: Between two cells.
        columns: Names of the columns, in the file's order.
        header: Whether the first line holds exactly these names.
        quoted: Whether double quotes enclose cells, as in CSV.

    Raises:
        CorpusError: Another header, a row with more or fewer cells, or no row.
    """
    rows = _rows(path, read_text(path, what), delimiter, quoted)
    found = list(_checked(rows, columns, what))
    if header:
        if not found or found[0].cells != list(columns):
            first = delimiter.join(found[0].cells) if found else "nothing"
            raise CorpusError(f"{path}: begins with {first[:80]!r}", expected=f"the header {delimiter.join(columns)!r} of {what}")
        found = found[1:]
    if not found:
        raise CorpusError(f"{path}: no rows", expected=what, do=_AGAIN)
    return found


def number_between(text: str, low: float, high: float, where: str) -> float:
    """A number that lies in [low, high].

    Raises:
        CorpusError: It does not, or it is no number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise CorpusError(f"{where}: {text[:40]!r}", expected=f"a number from {low:g} to {high:g}", do="mend or remove this row")
    return value


def text_of(entry: Any, key: str, where: str) -> str:
    """A string of a JSON entry that is more than spaces.

    Raises:
        CorpusError: The entry is no object, or the key is missing, empty, no valid Unicode or something else.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value.strip():
        found = "is missing" if value is None else f"is {str(value)[:40]!r}"
        raise CorpusError(f"{where}: {key} {found}", expected="text", do="mend or remove this entry")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise CorpusError(f"{where}: {key} holds half of a surrogate pair", expected="valid Unicode") from None
    return value


def _rows(path: Path, text: str, delimiter: str, quoted: bool) -> Iterator[Row]:
    # Not splitlines(), which also cuts at characters that occur within captions.
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    if not quoted:
        yield from (Row(f"{path}, line {number}", line.split(delimiter)) for number, line in enumerate(lines, 1) if line)
        return
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    first = 1
    try:
        for cells in reader:
            if cells:
                yield Row(f"{path}, line {first}", cells)
            first = reader.line_num + 1
    except csv.Error as error:
        raise CorpusError(f"{path}, line {first}: {error}", expected="quotes in pairs, around whole cells", do=_AGAIN) from None


def _checked(rows: Iterable[Row], columns: Sequence[str], what: str) -> Iterator[Row]:
    for row in rows:
        if len(row.cells) != len(columns):
            raise CorpusError(
                f"{row.where}: {len(row.cells)} columns",
                expected=f"{len(columns)} ({', '.join(columns)}) of {what}",
                do="mend or remove this row",
            )
        yield row


def _describe(root: Any) -> str:
    return "an empty JSON object" if root == {} else f"JSON that is no object but {type(root).__name__}"
