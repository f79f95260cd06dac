"""Karpathy's split JSON: `{"images": [{filename, filepath?, cocoid?, split?, sentences: [{raw, sentid}]}]}`.

The format of `dataset_flickr8k.json`, `dataset_flickr30k.json` and `dataset_coco.json`.
Source: Karpathy and Fei-Fei, CVPR 2015, arXiv:1412.2306.
"""

import json
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cprd_pipeline.corpus.formats.records import CaptionRecord, ImageRecord, Records, check_unique
from cprd_pipeline.corpus.settings import KarpathySettings
from cprd_pipeline.errors import CorpusError

_ONLY_SPLIT = "train"


def read_annotations(path: Path) -> bytes:
    """The annotation file's bytes.

    Raises:
        CorpusError: There is no such file, it cannot be read, or it is a Git LFS pointer.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorpusError(
            f"{path}: {error.strerror or error}", expected="Karpathy's split JSON", do="mend karpathy.annotations in the settings"
        ) from None
    if content.startswith(b"version https://git-lfs"):
        raise CorpusError(f"{path}: a Git LFS pointer, not the annotations", do="fetch the file itself with `git lfs pull`")
    return content


def read_karpathy(content: bytes, settings: KarpathySettings, max_images: int | None = None) -> Records:
    """Images and captions of a split file.

    Image ids are the COCO id where there is one, otherwise the path; caption ids are the sentence ids. A caption's text is `raw`,
    untouched. When no image names a split, all are `train`.

    Args:
        content: The file's bytes.
        settings: Its path (for messages), the image folder and the rule for `restval`.
        max_images: At most so many images of each split, the first of the file.

    Raises:
        CorpusError: Not such a file, or an entry is incomplete, repeated, empty, or leaves the image folder.
    """
    entries = _entries(content, settings.annotations)
    where = settings.annotations
    if not settings.images.is_dir():
        raise CorpusError(
            f"{settings.images}: no such folder", expected="the image files", do="mend karpathy.images in the settings"
        )
    split_given = any("split" in entry for entry in entries if isinstance(entry, dict))
    images: list[ImageRecord] = []
    captions: list[CaptionRecord] = []
    taken: Counter[str] = Counter()
    for number, raw in enumerate(entries):
        entry = _Entry(raw, f"{where}: images[{number}]")
        split = entry.text("split") if split_given else _ONLY_SPLIT
        if split == "restval" and settings.restval_as_train:
            split = "train"
        if max_images is not None and taken[split] == max_images:
            continue
        taken[split] += 1
        image = ImageRecord(*_id_and_path(entry, split))
        images.append(image)
        captions += _captions(entry, image.image_id)
    check_unique((image.image_id for image in images), "image", where)
    check_unique((caption.caption_id for caption in captions), "sentence", where)
    return Records(images, captions, settings.images)


def _entries(content: bytes, path: Path) -> list[Any]:
    try:
        root = json.loads(content)
    except json.JSONDecodeError as error:
        raise CorpusError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno}", do="fetch the file again; it may be cut off"
        ) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise CorpusError(f"{path}: not valid JSON ({type(error).__name__})", expected="UTF-8 text") from None
    entries = root.get("images") if isinstance(root, dict) else None
    if not isinstance(entries, list) or not entries:
        raise CorpusError(
            f"{path}: no list `images` with at least one entry", expected="Karpathy's split JSON", do="check karpathy.annotations"
        )
    return entries


class _Entry(NamedTuple):
    """A JSON object with the place where it stands, for messages."""

    content: Any
    where: str

    def get(self, key: str, kinds: tuple[type, ...], kind_name: str) -> Any:
        value = self.content.get(key) if isinstance(self.content, dict) else None
        if not isinstance(value, kinds) or isinstance(value, bool):
            found = "is missing" if value is None else f"is {str(value)[:60]!r}"
            raise CorpusError(f"{self.where}: {key} {found}", expected=kind_name, do="mend or remove this entry")
        return value

    def text(self, key: str) -> str:
        """A string that can be written as UTF-8 and holds more than spaces."""
        value: str = self.get(key, (str,), "text")
        if not value.strip():
            raise CorpusError(f"{self.where}: {key} is empty", expected="text", do="mend or remove this entry")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise CorpusError(f"{self.where}: {key} holds half of a surrogate pair", expected="valid Unicode") from None
        return value


def _id_and_path(entry: _Entry, split: str) -> tuple[str, str, str]:
    """Image id, split and path."""
    name = entry.text("filename")
    folder = entry.text("filepath") if entry.content.get("filepath") else ""
    path = PurePosixPath(folder, name)
    if path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise CorpusError(f"{entry.where}: path {str(path)!r} leaves the image folder", expected="a path inside it")
    image_id = str(path) if entry.content.get("cocoid") is None else str(entry.get("cocoid", (int, str), "a number"))
    return image_id, split, str(path)


def _captions(entry: _Entry, image_id: str) -> list[CaptionRecord]:
    captions = []
    for number, raw in enumerate(entry.get("sentences", (list,), "a list of sentences")):
        sentence = _Entry(raw, f"{entry.where}.sentences[{number}]")
        captions.append(CaptionRecord(str(sentence.get("sentid", (int, str), "a number")), sentence.text("raw"), image_id))
    return captions
