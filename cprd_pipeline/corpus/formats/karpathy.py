"""Karpathy's split JSON: `dataset_coco.json`, `dataset_flickr8k.json`, `dataset_flickr30k.json`.

Source of the format: Karpathy and Fei-Fei, CVPR 2015, arXiv:1412.2306.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from cprd_pipeline.corpus.formats.records import CaptionRecord, ImageRecord, Source
from cprd_pipeline.corpus.settings import KarpathySettings
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.atomic import checksum

_LFS_POINTER = "version https://git-lfs"


def read_karpathy(settings: KarpathySettings) -> Source:
    """Read annotations; pictures are not touched yet.

    Image ids are COCO ids where the file has them, otherwise file names without folder; caption ids are `sentid`s.

    Raises:
        CorpusError: The file is not such a JSON, a record lacks a key, an id repeats, or a caption is empty.
    """
    path = settings.annotations
    source = Source(image_root=str(settings.images), digest=checksum(path) if path.is_file() else "")
    for number, record in enumerate(_records(path)):
        where = f"{path}: images[{number}]"
        _add_image(source, settings, record, where)
        for sentence in _get(record, "sentences", list, where):
            _add_caption(source, sentence, where)
    if not source.captions:
        raise CorpusError(f"{path}: no caption in it", expected="at least one sentence")
    for kind, ids in (
        ("image", [image.image_id for image in source.images]),
        ("caption", [caption.caption_id for caption in source.captions]),
    ):
        item, count = Counter(ids).most_common(1)[0]
        if count > 1:
            raise CorpusError(f"{path}: {kind} id {item!r} occurs {count} times", expected="unique ids", do="rename or remove some")
    return source


def _add_image(source: Source, settings: KarpathySettings, record: dict[str, Any], where: str) -> None:
    name = _get(record, "filename", str, where)
    folder = record.get("filepath")
    split = _get(record, "split", str, where)
    if split == "restval" and settings.restval_as_train:
        split = "train"
    image_id = str(record["cocoid"]) if "cocoid" in record else name
    source.images.append(ImageRecord(image_id, split, path=f"{folder}/{name}" if folder else name))


def _add_caption(source: Source, sentence: Any, where: str) -> None:
    text = _get(sentence, "raw", str, f"{where}.sentences")
    caption_id = str(_get(sentence, "sentid", int, f"{where}.sentences"))
    if not text.strip():
        raise CorpusError(f"{where}: caption {caption_id} is empty", expected="text", do="remove the sentence")
    image = source.images[-1]
    source.captions.append(CaptionRecord(caption_id, image.split, text))
    source.positives.append((image.image_id, caption_id))


def _records(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CorpusError(f"{path}: there is no such file", do="mend karpathy.annotations in stages/prepare.yaml") from None
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path}: not UTF-8 (byte {error.start} is {error.object[error.start]:#04x})", expected="UTF-8 JSON"
        ) from None
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror}") from None
    if text.startswith(_LFS_POINTER):
        raise CorpusError(f"{path}: a Git LFS pointer, not the file itself", do="fetch the file with `git lfs pull`")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CorpusError(f"{path}: not JSON ({error})", expected="Karpathy's split JSON") from None
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise CorpusError(f"{path}: no list 'images' in it", expected="Karpathy's split JSON")
    if not content["images"]:
        raise CorpusError(f"{path}: the list 'images' is empty", expected="at least one image")
    records: list[Any] = content["images"]
    return records


def _get(record: Any, key: str, type_: type, where: str) -> Any:
    if not isinstance(record, dict) or not isinstance(record.get(key), type_):
        found = record.get(key) if isinstance(record, dict) else record
        raise CorpusError(f"{where}: {key} is {found!r}", expected=f"a {type_.__name__}", do="mend this record")
    return record[key]
