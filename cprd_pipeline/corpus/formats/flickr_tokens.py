"""Token files of Flickr8k and Flickr30k: one caption a line, `<image name>#<number><tab><caption>`.

The format of `Flickr8k.token.txt`, `Flickr8k.lemma.txt` and `results_20130124.token`. Splits come from lists of
image names (`files.split_lists`).
Source: Hodosh, Young and Hockenmaier, JAIR 47 (2013); Young et al., TACL 2 (2014).
"""

import re
from collections.abc import Sequence

from cprd_pipeline.corpus.formats.lines import check_unmerged, lines_of
from cprd_pipeline.corpus.formats.places import collector_for
from cprd_pipeline.corpus.formats.records import Records
from cprd_pipeline.corpus.formats.source import Format, SourceFile
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError

_LINE = re.compile(r"(?P<name>[^\t#]+)#(?P<number>\d+)\t(?P<caption>.*)", re.DOTALL)
_SHAPE = "<image name>#<number><tab><caption>"


def refuse_tokens(source: SourceFile, settings: FilesSettings) -> str:
    """Why a file is no token file."""
    first = next(lines_of(source), None)
    if first is None:
        return "no line that holds anything"
    return "" if _LINE.fullmatch(first[1]) else f"line {first[0]} is not {_SHAPE}"


def read_tokens(sources: Sequence[SourceFile], settings: FilesSettings) -> Records:
    """Images and captions of token files; image ids are the names, caption ids `<name>#<number>` as in the file.

    Raises:
        CorpusError: A line of another shape, two captions on one line, a repeated id, or a name that leaves the image folder.
    """
    found = collector_for(sources, settings)
    for source in sources:
        for number, line in lines_of(source):
            where = f"{source.path}: line {number}"
            match = _LINE.fullmatch(line)
            if match is None:
                raise CorpusError(f"{where} is {line[:60]!r}", expected=_SHAPE, do="mend or remove this line")
            check_unmerged(match["caption"], where)
            name = match["name"]
            image_id = found.add_image("", name, source.split, where, again=True)
            found.add_caption(f"{name}#{match['number']}", match["caption"], image_id, where)
        source.forget()
    return found.finish()


FLICKR_TOKENS = Format("flickr_tokens", "Flickr's token file", refuse_tokens, read_tokens)
