"""From the settings' annotation files to records that are ready for decoding: format, splits, limit, captions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cprd_pipeline.corpus.captions import BadCaption, clean_captions
from cprd_pipeline.corpus.formats.image_folder import IMAGE_ENDINGS, walk
from cprd_pipeline.corpus.formats.places import find_root, open_sources
from cprd_pipeline.corpus.formats.recognition import choose_format
from cprd_pipeline.corpus.formats.records import Records
from cprd_pipeline.corpus.formats.source import Format, SourceFile
from cprd_pipeline.corpus.pause import without_collector
from cprd_pipeline.corpus.settings import FilesSettings, PrepareSettings
from cprd_pipeline.corpus.splits import SplitLists, assign_lists, check_records, limit_images, open_lists
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.atomic import checksum
from cprd_pipeline.store.fingerprint import json_digest

READERS_VERSION = 1
"""Raised whenever a reader would make other records of the same files."""


@dataclass(frozen=True)
class Taken:
    """What a source holds, before any image is decoded.

    Args:
        records: Images, and captions that can be used.
        bad_captions: Captions that cannot.
        counts: What lists of splits left out.
    """

    records: Records
    bad_captions: list[BadCaption] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


class Intake:
    """The annotation files of a run, opened and recognised, but not read.

    Args:
        settings: Of the stage; its source is files.

    Raises:
        CorpusError: A file is missing, empty or a Git LFS pointer, of no known format, or there is no image folder.
    """

    def __init__(self, settings: PrepareSettings) -> None:
        assert settings.files is not None
        self._settings = settings
        self.files: FilesSettings = settings.files
        self.sources: list[SourceFile] = open_sources(self.files)
        self.lists: SplitLists = open_lists(self.files.split_lists)
        self.format: Format = choose_format(settings.source, self.sources, self.files)
        self.image_root = find_root(self.sources, self.files)

    def shaping(self) -> dict[str, Any]:
        """The settings that shape the records; no path but the image root, which the corpus' readers need."""
        return {
            "source": self.format.name,
            "readers": READERS_VERSION,
            "image_root": str(self.image_root),
            "columns": self.files.columns.as_json(),
            "delimiter": self.files.delimiter,
            "rename_splits": self.files.rename_splits,
            "split_of_files": [source.split for source in self.sources],
            "rest": self.lists.rest,
            "unpaired": self.files.unpaired,
            "captions": self._settings.captions.as_json(),
            "max_images": self._settings.max_images,
        }

    def inputs(self) -> dict[str, str]:
        """Digests of the annotation files and of the lists of splits."""
        many = len(self.sources) > 1
        annotations = {f"annotations {n}" if many else "annotations": _digest(source) for n, source in enumerate(self.sources)}
        return annotations | {f"list {split}": _digest(source) for split, source in self.lists.files.items()}

    def read(self) -> Taken:
        """Read everything.

        Raises:
            CorpusError: The files are damaged or incomplete; the message names the line or key.
        """
        with without_collector():
            return self._read()

    def _read(self) -> Taken:
        records = self.format.read(self.sources, self.files)
        where = str(self.sources[0].path)
        if not records.images:
            raise CorpusError(f"{where}: holds no image", expected=self.format.title, do="mend files.paths")
        counts: dict[str, int] = {}
        if self.files.split_lists:
            records, counts = assign_lists(records, self.lists)
        if self._settings.max_images is not None:
            records = limit_images(records, self._settings.max_images)
        check_records(records, where, keep_unpaired=self.files.unpaired == "keep")
        good, bad = clean_captions(records.captions, self._settings.captions)
        return Taken(Records(records.images, good, records.image_root, records.splits_given, records.notes), bad, counts)


def check_bad(bad: Sequence[tuple[str, str]], total: int, most: float, what: str) -> None:
    """Stop when more items are bad than the settings allow.

    Args:
        bad: Name and reason of each bad item.
        total: Good and bad ones.
        most: Largest share that may be bad.
        what: `images` or `captions`.

    Raises:
        CorpusError: All are counted, the first is named.
    """
    if not bad or (len(bad) <= most * total and len(bad) < total):
        return
    name, reason = bad[0]
    do = f"mend them, or leave bad ones out with bad_{what}: skip (or a larger share)"
    if what == "images" and 2 * len(bad) > total:
        do = f"look whether files.images is the folder that the paths begin in; otherwise {do}"
    raise CorpusError(
        f"{len(bad):,} of {total:,} {what} cannot be used, the first is {name}: {reason}",
        expected=f"at most {most:.3g} of all" if most < 1 else "at least one that can",
        do=do,
    )


def doubts_about_images(bad: int, total: int) -> list[str]:
    """A note about most images being left out, which is hardly what a user meant; none where they are fewer.

    Args:
        bad: Images that are missing or cannot be used.
        total: Good and bad ones.
    """
    if 2 * bad <= total:
        return []
    return [f"{bad:,} of {total:,} images are left out: is files.images the folder that the paths begin in?"]


def _digest(source: SourceFile) -> str:
    """Of a file's bytes; of a folder's files, where images count by their names (their bytes have digests of their own)."""
    if not source.is_folder:
        return checksum(source.path)
    files = [(path.relative_to(source.path).as_posix(), _unless_image(path)) for path in walk(source.path)]
    return json_digest([(name.encode(errors="surrogateescape").hex(), digest) for name, digest in files])


def _unless_image(path: Path) -> str:
    return "" if path.suffix.lower() in IMAGE_ENDINGS else checksum(path)
