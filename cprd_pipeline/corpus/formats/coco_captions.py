"""COCO's captions JSON: `{"images": [{id, file_name, coco_url?}], "annotations": [{id, image_id, caption}]}`.

The format of `captions_train2014.json`, `captions_val2017.json` and their likes, which name no splits:
`files.paths` may map a split to each.
Source: Chen et al. 2015, arXiv:1504.00325.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cprd_pipeline.corpus.formats.collector import Collector
from cprd_pipeline.corpus.formats.entries import Entry
from cprd_pipeline.corpus.formats.places import collector_for
from cprd_pipeline.corpus.formats.records import Records
from cprd_pipeline.corpus.formats.source import Format, SourceFile
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError

_NAME_OF_2014 = re.compile(r"COCO_([a-z]+2014)_")


def refuse_coco(source: SourceFile, settings: FilesSettings) -> str:
    """Why a file is no captions file."""
    root = source.json
    lists = [root.get(key) if isinstance(root, dict) else None for key in ("images", "annotations")]
    if not all(isinstance(entries, list) and entries for entries in lists):
        return "no lists `images` and `annotations` with at least one entry each"
    if not any(isinstance(entry, dict) and "caption" in entry for entry in lists[1] or ()):
        return "its annotations hold no `caption` (instances or keypoints?)"
    return ""


def read_coco(sources: Sequence[SourceFile], settings: FilesSettings) -> Records:
    """Images and captions of captions files; ids are those of the files.

    Raises:
        CorpusError: An entry is incomplete or repeated, leaves the image folder, or names an image that is not listed.
    """
    found = collector_for(sources, settings)
    for source in sources:
        reason = refuse_coco(source, settings)
        if reason:
            raise CorpusError(f"{source.path}: {reason}", expected="COCO's captions JSON", do="check files.paths")
        content: dict[str, Any] = source.json
        source.forget()
        folders = _Folders(found.image_root)
        for number, raw in enumerate(content["images"]):
            entry = Entry(raw, f"{source.path}: images[{number}]")
            found.add_image(entry.identity("id"), folders.path_of(entry), source.split, entry.where)
        for number, raw in enumerate(content["annotations"]):
            _add_caption(found, Entry(raw, f"{source.path}: annotations[{number}]"))
            content["annotations"][number] = None  # The parsed JSON is several times as large as the records.
    return found.finish()


def _add_caption(found: Collector, entry: Entry) -> None:
    image_id = entry.identity("image_id")
    if not found.has_image(image_id):
        raise CorpusError(
            f"{entry.where}: image_id {image_id} is in no list `images`",
            expected="an image of these files",
            do="remove this annotation, or name the file that lists its image too",
        )
    found.add_caption(entry.identity("id"), entry.get("caption", (str,), "text"), image_id, entry.where)


class _Folders:
    """COCO names files without the folder that its archives unpack to (val2017/): used where there is such a folder.

    Args:
        root: The image root.
    """

    def __init__(self, root: object) -> None:
        self._root = root
        self._known: dict[str, bool] = {}

    def path_of(self, entry: Entry) -> str:
        name = entry.name("file_name")
        folder = self._folder(name, entry.content.get("coco_url"))
        if not folder or "/" in name:
            return name
        if folder not in self._known:
            self._known[folder] = isinstance(self._root, Path) and (self._root / folder).is_dir()
        return f"{folder}/{name}" if self._known[folder] else name

    @staticmethod
    def _folder(name: str, url: object) -> str:
        of_2014 = _NAME_OF_2014.match(name)
        if of_2014:
            return of_2014[1]
        folder = PurePosixPath(url).parent.name if isinstance(url, str) else ""
        return folder if re.fullmatch(r"[a-z]+20\d\d", folder) else ""


COCO_CAPTIONS = Format("coco_captions", "COCO's captions JSON", refuse_coco, read_coco)
