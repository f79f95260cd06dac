"""A folder of images with a text file of the same name beside each: one caption a line."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cprd_pipeline.corpus.formats.collector import Collector
from cprd_pipeline.corpus.formats.places import find_root
from cprd_pipeline.corpus.formats.records import Records
from cprd_pipeline.corpus.formats.source import Format, SourceFile
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError

IMAGE_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm", ".jp2", ".tga", ".jfif")
)
"""Of files that count as images."""

_TEXT = ".txt"


def refuse_folder(source: SourceFile, settings: FilesSettings) -> str:
    """Why a path is no such folder."""
    if not source.is_folder:
        return "not a folder"
    for path in walk(source.path):
        if path.suffix.lower() in IMAGE_ENDINGS and path.with_suffix(_TEXT).is_file():
            return ""
    return "no image with a .txt of the same name beside it"


def read_folder(sources: Sequence[SourceFile], settings: FilesSettings) -> Records:
    """Images and captions of folders and the folders inside; image ids are the paths.

    Raises:
        CorpusError: Two images share one text file, a text file has no image, or holds no UTF-8.
    """
    root = find_root(sources, settings)
    if not isinstance(root, Path):
        raise CorpusError(f"{root}: an address", expected="a folder of this machine", do="set files.images to null")
    found = Collector(root, settings.rename_splits)
    for source in sources:
        if not source.is_folder:
            raise CorpusError(f"{source.path}: not a folder", expected="a folder of images", do="check files.paths")
        _read_one(found, source, root, settings.unpaired == "keep")
    return found.finish()


def _read_one(found: Collector, source: SourceFile, root: Path, keep_unpaired: bool) -> None:
    texts: dict[Path, str | None] = {}
    for path in walk(source.path):
        if path.suffix.lower() == _TEXT:
            texts.setdefault(path.with_suffix(""))
            continue
        if path.suffix.lower() not in IMAGE_ENDINGS:
            continue
        image_id = found.add_image("", _relative(path, root), source.split, str(path))
        beside = path.with_suffix(_TEXT)
        if texts.get(path.with_suffix("")) is not None:
            raise CorpusError(f"{beside}: stands beside two images", expected="one image a text file", do="rename one of them")
        if beside.is_file():
            texts[path.with_suffix("")] = image_id
            _add_captions(found, beside, image_id, source.split)
    for stem, owner in texts.items():
        if owner is None:
            path = stem.with_name(f"{stem.name}{_TEXT}")
            if not keep_unpaired:
                raise CorpusError(
                    f"{path}: no image of that name beside it",
                    expected="an image for every text file",
                    do="remove it, or keep unpaired captions with files.unpaired: keep",
                )
            _add_captions(found, path, None, source.split)


def _add_captions(found: Collector, path: Path, image_id: str | None, split: str | None) -> None:
    if not path.stat().st_size:
        found.add_caption("", "", image_id, f"{path}: line 1", split)  # an empty caption, which is refused later
        return
    for number, line in enumerate(SourceFile(path).text.split("\n"), start=1):
        text = line.removesuffix("\r")
        if text and not text.isspace():
            found.add_caption("", text, image_id, f"{path}: line {number}", split)


def _relative(path: Path, root: Path) -> str:
    try:
        return path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        raise CorpusError(
            f"{path}: lies outside of {root}", expected="an image inside files.images", do="set files.images to null"
        ) from None


def walk(folder: Path) -> Iterator[Path]:
    """Every file of a folder and the folders inside, sorted; hidden ones are skipped, links to folders are not followed."""
    for name, folders, files in os.walk(folder):
        folders[:] = sorted(inner for inner in folders if not inner.startswith("."))
        for file in sorted(files):
            if not file.startswith("."):
                yield Path(name, file)


FOLDER = Format("folder", "a folder of images with .txt beside them", refuse_folder, read_folder)
