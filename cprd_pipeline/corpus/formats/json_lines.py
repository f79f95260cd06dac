"""JSON lines: one object a line, keys as columns; the caption may be a list."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from cprd_pipeline.corpus.formats.columns import find_columns, need_columns
from cprd_pipeline.corpus.formats.lines import lines_of
from cprd_pipeline.corpus.formats.places import collector_for
from cprd_pipeline.corpus.formats.records import Records
from cprd_pipeline.corpus.formats.rows import Row, RowReader
from cprd_pipeline.corpus.formats.source import Format, SourceFile
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError

_FIRST = 1000  # objects whose keys are looked at: a key may be absent where its value is null


def refuse_json_lines(source: SourceFile, settings: FilesSettings) -> str:
    """Why a file does not hold JSON lines with images and captions."""
    first = next(_objects(source), None)
    if first is None:
        return "no line that holds anything"
    columns = find_columns(_keys(source), settings.columns, str(source.path))
    if columns.image is None or columns.caption is None:
        return "its objects have no key for the image or none for the caption"
    return ""


def read_json_lines(sources: Sequence[SourceFile], settings: FilesSettings) -> Records:
    """Images and captions of JSON lines.

    Raises:
        CorpusError: A line is no JSON object, a key is missing, or what rows refuse.
    """
    found = collector_for(sources, settings)
    for source in sources:
        reader = RowReader(found, need_columns(_keys(source), settings.columns, str(source.path)), settings)
        for row in _objects(source):
            reader.add(row, source.split)
        source.forget()
    return found.finish()


def _keys(source: SourceFile) -> list[str]:
    found: dict[str, None] = {}
    try:
        for row in islice(_objects(source), _FIRST):
            found |= dict.fromkeys(row.values)
    except CorpusError:
        if not found:
            raise
        # The line is named when it is read, by a reader that is sure of the format.
    return list(found)


def _objects(source: SourceFile) -> Iterator[Row]:
    for number, line in lines_of(source):
        where = f"{source.path}: line {number}"
        value: Any
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            column = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            raise CorpusError(f"{where} is not valid JSON{column}", expected="one object a line", do="mend or remove it") from None
        if not isinstance(value, dict):
            raise CorpusError(f"{where} is no JSON object", expected="one object a line", do="mend or remove it")
        yield Row(where, value)


JSONL = Format("jsonl", "JSON lines", refuse_json_lines, read_json_lines)
