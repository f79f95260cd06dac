"""CSV and TSV files with a header: one row a caption, columns by name."""

import csv
import io
from collections.abc import Iterator, Sequence

from cprd_pipeline.corpus.formats.columns import find_columns, need_columns
from cprd_pipeline.corpus.formats.places import collector_for
from cprd_pipeline.corpus.formats.records import Records
from cprd_pipeline.corpus.formats.rows import Row, RowReader
from cprd_pipeline.corpus.formats.source import Format, SourceFile
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError

_DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe"}


def refuse_delimited(source: SourceFile, settings: FilesSettings) -> str:
    """Why a file is no table with a header."""
    header = _header(source, _delimiter(source, settings))
    columns = find_columns(header, settings.columns, str(source.path))
    if columns.image is None or columns.caption is None:
        return f"line 1 is no header that names an image and a caption column ({', '.join(header)[:60]!r})"
    return ""


def read_delimited(sources: Sequence[SourceFile], settings: FilesSettings) -> Records:
    """Images and captions of tables. Fields may be quoted as RFC 4180 says; the delimiter is found by the header.

    Raises:
        CorpusError: A column is missing, a row has another number of fields, a quote is not closed, or what rows refuse.
    """
    found = collector_for(sources, settings)
    for source in sources:
        delimiter = _delimiter(source, settings)
        header = _header(source, delimiter)
        where = f"{source.path}: line 1 (delimiter {_DELIMITERS.get(delimiter, delimiter)})"
        reader = RowReader(found, need_columns(header, settings.columns, where), settings)
        for row in _rows(source, header, delimiter):
            reader.add(row, source.split)
        source.forget()
    return found.finish()


def _rows(source: SourceFile, header: Sequence[str], delimiter: str) -> Iterator[Row]:
    """Rows after the header, named by the line on which they begin."""
    lines = csv.reader(io.StringIO(source.text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        next(lines)
        line = lines.line_num + 1
        for fields in lines:
            where = f"{source.path}: line {line}"
            line = lines.line_num + 1
            if not fields:
                continue
            if len(fields) != len(header):
                raise CorpusError(
                    f"{where} has {len(fields)} fields",
                    expected=f"{len(header)} as in the header",
                    do="quote the field that holds the delimiter, or mend files.delimiter",
                )
            yield Row(where, dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise CorpusError(
            f"{source.path}: line {line} is no row of a table ({error})",
            expected="quotes that are closed, and doubled inside quoted fields",
            do="mend the quotes there",
        ) from None


def _header(source: SourceFile, delimiter: str) -> list[str]:
    first = source.text.split("\n", 1)[0].removesuffix("\r")
    try:
        names = next(csv.reader([first], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise CorpusError(f"{source.path}: line 1 is no header ({error})", expected="names of columns") from None
    names = [name.strip() for name in names]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise CorpusError(
            f"{source.path}: line 1 names the column {twice[:30]!r} twice", expected="every name once", do="rename one"
        )
    return names


def _delimiter(source: SourceFile, settings: FilesSettings) -> str:
    """The delimiter of the settings, otherwise the one that occurs most often in the header."""
    if settings.delimiter is not None:
        return settings.delimiter
    first = source.text.split("\n", 1)[0]
    return max(_DELIMITERS, key=first.count)


CSV = Format("csv", "CSV or TSV with a header", refuse_delimited, read_delimited)
