"""Webdataset's tar shards: the files of one key are one sample.

`<key>.jpg` has its captions in `<key>.txt`, in `<key>.0.txt` and so on, or in `<key>.json`. Where the JSON holds a list of
captions, that counts; otherwise the text files; otherwise the JSON's single caption. Images are not unpacked: a record holds where
in the shard its file lies.
Source: https://github.com/webdataset/webdataset (the format, "WebDataset Format" in its README).
"""

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cprd_pipeline.corpus.formats.collector import Collector
from cprd_pipeline.corpus.formats.columns import find_columns
from cprd_pipeline.corpus.formats.image_folder import IMAGE_ENDINGS
from cprd_pipeline.corpus.formats.records import Records, StoredImage
from cprd_pipeline.corpus.formats.rows import Row, RowReader
from cprd_pipeline.corpus.formats.source import Format, SourceFile
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError

_TEXT = re.compile(r"(?:txt|text|caption)(?P<after>\d*)|(?P<before>\d+)\.txt")
_MAGIC = slice(257, 262)  # where a tar file says `ustar`
_GZIP = b"\x1f\x8b"
_MOST_TEXT = 16 * 2**20


@dataclass(frozen=True, slots=True)
class TarMember(StoredImage):
    """An image file inside a tar shard.

    Args:
        shard: The shard.
        offset: Where its bytes begin.
        size: How many there are.
    """

    shard: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """The image file's bytes.

        Raises:
            CorpusError: The shard is gone or shorter than it was.
        """
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise CorpusError(f"{self.shard}: {error.strerror or error}", do="bring the shard back") from None
        if len(content) != self.size:
            raise CorpusError(f"{self.shard}: ends inside an image", do="fetch the shard again")
        return content


@dataclass
class _Sample:
    """Members of one key."""

    key: str
    image: TarMember | None = None
    texts: dict[int, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def refuse_shards(source: SourceFile, settings: FilesSettings) -> str:
    """Why a path is no shard, and no folder of shards."""
    if source.is_folder:
        return "" if any(source.path.glob("*.tar")) else "a folder without .tar files"
    if source.head.startswith(_GZIP):
        return "compressed (gunzip brings a tar file)"
    return "" if source.head[_MAGIC] == b"ustar" or source.path.suffix == ".tar" else "no tar file"


def read_shards(sources: Sequence[SourceFile], settings: FilesSettings) -> Records:
    """Images and captions of shards; image ids are the keys.

    Raises:
        CorpusError: A shard is damaged or compressed, a key repeats, or a sample lacks its image or its captions.
    """
    found = Collector(Path(), settings.rename_splits)
    for source in sources:
        for shard in sorted(source.path.glob("*.tar")) if source.is_folder else [source.path]:
            ignored: set[str] = set()
            for sample in _samples(shard, ignored):
                _add(found, sample, shard, source.split, settings)
            if ignored:
                found.notes.append(f"{shard}: members .{', .'.join(sorted(ignored)[:5])} are neither images nor captions")
    return found.finish()


def _add(found: Collector, sample: _Sample, shard: Path, split: str | None, settings: FilesSettings) -> None:
    where = f"{shard}: {sample.key}"
    facts = {name: value for name, value in sample.facts.items() if name != "image"}
    columns = find_columns(list(facts), settings.columns.model_copy(update={"image": None}), where)
    captions = facts.get(columns.caption or "")
    if not isinstance(captions, list) and sample.texts:
        captions = [text for _, text in sorted(sample.texts.items())]
    reader = RowReader(found, columns._replace(image="image", caption="captions"), settings)
    reader.add(Row(where, facts | {"image": sample.image, "captions": captions}, sample.key), split)


def _samples(shard: Path, ignored: set[str]) -> Iterator[_Sample]:
    """Samples in the order of the shard; members of one key stand together in it."""
    sample: _Sample | None = None
    for key, ending, member, content in _members(shard):
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = _Sample(key)
        text = _TEXT.fullmatch(ending)
        if f".{ending}" in IMAGE_ENDINGS:
            if sample.image is not None:
                raise CorpusError(f"{shard}: {key} has two images", expected="one image a key", do="give each image its own key")
            sample.image = member
        elif text is not None:
            sample.texts[int(text["after"] or text["before"] or -1)] = _decoded(content, f"{shard}: {key}.{ending}")
        elif ending == "json":
            sample.facts = _parsed(content, f"{shard}: {key}.{ending}")
        else:
            ignored.add(ending)
    if sample is not None:
        yield sample


def _members(shard: Path) -> Iterator[tuple[str, str, TarMember, bytes]]:
    """Key, ending, place and, of small texts, content of each file."""
    size = shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if not member.isreg():
                    continue
                folder, slash, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                ending = ending.lower()
                if member.offset_data + member.size > size:
                    raise CorpusError(f"{shard}: ends inside {member.name}", do="fetch the shard again")
                wanted = ending == "json" or _TEXT.fullmatch(ending)
                if wanted and member.size > _MOST_TEXT:
                    raise CorpusError(f"{shard}: {member.name} has {member.size:,} bytes", expected="a caption or a small JSON")
                file = archive.extractfile(member) if wanted else None
                place = TarMember(shard.absolute(), member.offset_data, member.size)
                yield f"{folder}{slash}{stem}", ending, place, file.read() if file else b""
    except CorpusError:
        raise
    except Exception as error:
        # Damaged headers make tarfile raise nearly everything: ReadError, ValueError, EOFError, UnicodeDecodeError, ...
        raise CorpusError(
            f"{shard}: no whole tar file ({type(error).__name__}: {' '.join(str(error).split())})",
            expected="an uncompressed tar shard",
            do="fetch it again, or decompress it (gunzip)",
        ) from None


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CorpusError(f"{where}: not UTF-8", expected="UTF-8 text", do="mend the shard") from None


def _parsed(content: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(_decoded(content, where))
    except (ValueError, RecursionError):
        raise CorpusError(f"{where}: not valid JSON", expected="one object", do="mend the shard") from None
    if not isinstance(value, dict):
        raise CorpusError(f"{where}: no JSON object", expected="one object", do="mend the shard")
    return value


WEBDATASET = Format("webdataset", "webdataset's tar shards", refuse_shards, read_shards)
