"""Flickr30k's `results.csv`: `image_name| comment_number| comment`, and the shapes in which users left it.

Besides the original with pipes: commas in place of pipes, fields in CSV quotes, captions with commas or pipes that nobody quoted,
and the original's well-known row `2199200615.jpg| 4   A dog runs across the grass .`, which lacks its second separator. All these
can be read in one way only, so they are read, and that row is noted in the report.
Source: Young et al., TACL 2 (2014).
"""

import re
from collections.abc import Sequence

from cprd_pipeline.corpus.formats.lines import check_unmerged, lines_of
from cprd_pipeline.corpus.formats.places import collector_for
from cprd_pipeline.corpus.formats.records import Records
from cprd_pipeline.corpus.formats.source import Format, SourceFile
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError

_HEADER = re.compile(r'"?image_name"?\s*([|,])\s*"?comment_number"?\s*\1\s*"?comment"?\s*')
_ROW = re.compile(
    r'\s*("?)(?P<name>[^|,"]+)\1\s*[|,]\s*("?)(?P<number>\d+)\3(?P<separator>\s*[|,]|\s+)[ \t]*(?P<caption>.*)', re.DOTALL
)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"\s*')
_SHAPE = "image_name| comment_number| comment"


def refuse_results(source: SourceFile, settings: FilesSettings) -> str:
    """Why a file is no results file."""
    first = next(lines_of(source), None)
    if first is None:
        return "no line that holds anything"
    return "" if _HEADER.fullmatch(first[1]) else f"line {first[0]} is not the header {_SHAPE}"


def read_results(sources: Sequence[SourceFile], settings: FilesSettings) -> Records:
    """Images and captions of results files; image ids are the names, caption ids `<name>#<number>`.

    Raises:
        CorpusError: A line of another shape, two captions on one line, a repeated id, or a name that leaves the image folder.
    """
    found = collector_for(sources, settings)
    for source in sources:
        rows = lines_of(source)
        header = next(rows, (1, ""))[1]
        if not _HEADER.fullmatch(header):
            raise CorpusError(
                f"{source.path}: line 1 is {header[:60]!r}", expected=f"the header {_SHAPE}", do="add it, or set source"
            )
        for number, line in rows:
            where = f"{source.path}: line {number}"
            row = _ROW.fullmatch(line)
            if row is None:
                raise CorpusError(f"{where} is {line[:60]!r}", expected=_SHAPE, do="mend or remove this line")
            if row["separator"].isspace():
                found.notes.append(f"{where}: no separator after the number {row['number']}, the rest is read as the caption")
            caption = _unquote(row["caption"], row[1] == '"' or "," in header, where)
            check_unmerged(caption, where)
            name = row["name"].strip()
            image_id = found.add_image("", name, source.split, where, again=True)
            found.add_caption(f"{name}#{row['number']}", caption, image_id, where)
        source.forget()
    return found.finish()


def _unquote(text: str, csv_quotes: bool, where: str) -> str:
    """A field without CSV's quotes.

    Args:
        text: The field.
        csv_quotes: Whether the file is CSV. In the original a caption that is a quotation keeps its quotes.
        where: For messages.
    """
    quoted = _QUOTED.fullmatch(text)
    if quoted and (csv_quotes or '""' in quoted[1] or "|" in quoted[1]):
        return quoted[1].replace('""', '"')
    if csv_quotes and text.startswith('"') and text.count('"') == 1:
        raise CorpusError(f"{where}: a quote is opened and not closed", expected="one caption a line", do="mend this line")
    return text


FLICKR30K_RESULTS = Format("flickr30k_results", "Flickr30k's results.csv", refuse_results, read_results)
