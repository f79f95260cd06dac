"""Text files with one entry a line."""

import re
from collections.abc import Iterator

from cprd_pipeline.corpus.formats.source import SourceFile
from cprd_pipeline.errors import CorpusError

_BEGINNING = re.compile(r"\S{1,200}\.(?:jpe?g|png|webp)\S*(?:#\d+\t|\s*\|\s*\d+\s*\||\s*,\s*\d+\s*,)", re.IGNORECASE)


def lines_of(source: SourceFile) -> Iterator[tuple[int, str]]:
    """Lines that hold more than spaces, with their numbers from 1, without the line's end.

    Only line feeds, with or without a carriage return, end a line: `str.splitlines` would also cut at U+2028 and control characters
    inside a caption.

    Raises:
        CorpusError: The file is not UTF-8.
    """
    for number, line in enumerate(source.text.split("\n"), start=1):
        if line and not line.isspace():
            yield number, line.removesuffix("\r")


def check_unmerged(caption: str, where: str) -> None:
    """Refuse a caption in which the next line's beginning stands: its line break was lost.

    Raises:
        CorpusError: The message quotes the beginning.
    """
    inner = _BEGINNING.search(caption) if "." in caption else None
    if inner:
        raise CorpusError(
            f"{where} holds two captions ({inner[0].strip()[:60]!r} stands inside)",
            expected="one caption a line",
            do="break the line there",
        )
