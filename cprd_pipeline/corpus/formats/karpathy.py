"""Karpathy's split JSON: `{"images": [{filename, filepath?, cocoid?, split?, sentences: [{raw, sentid}]}]}`.

The format of `dataset_flickr8k.json`, `dataset_flickr30k.json` and `dataset_coco.json`.
Source: Karpathy and Fei-Fei, CVPR 2015, arXiv:1412.2306.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from cprd_pipeline.corpus.formats.collector import Collector
from cprd_pipeline.corpus.formats.entries import Entry
from cprd_pipeline.corpus.formats.places import collector_for
from cprd_pipeline.corpus.formats.records import Records
from cprd_pipeline.corpus.formats.source import Format, SourceFile
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError


def refuse_karpathy(source: SourceFile, settings: FilesSettings) -> str:
    """Why a file is no split file."""
    root = source.json
    images = root.get("images") if isinstance(root, dict) else None
    if not isinstance(images, list) or not images:
        return "no list `images` with at least one entry"
    # Not the first entry alone: that one may be the damaged one, which reading then names.
    if not any(isinstance(entry, dict) and ("sentences" in entry or "filename" in entry) for entry in images):
        return "its images hold no `sentences`"
    return ""


def read_karpathy(sources: Sequence[SourceFile], settings: FilesSettings) -> Records:
    """Images and captions of split files.

    Image ids are the COCO id where there is one, otherwise the path; caption ids are the sentence ids. A caption's text is `raw`,
    untouched. When no image names a split, all are `train`.

    Raises:
        CorpusError: An entry is incomplete or repeated, or leaves the image folder.
    """
    found = collector_for(sources, settings)
    for source in sources:
        reason = refuse_karpathy(source, settings)
        if reason:
            raise CorpusError(f"{source.path}: {reason}", expected="Karpathy's split JSON", do="check files.paths")
        entries: list[Any] = source.json["images"]
        source.forget()
        split_given = source.split is None and any("split" in entry for entry in entries if isinstance(entry, dict))
        for number, raw in enumerate(entries):
            _add(found, Entry(raw, f"{source.path}: images[{number}]"), source.split, split_given)
            entries[number] = None  # The parsed JSON is several times as large as the records.
    return found.finish()


def _add(found: Collector, entry: Entry, split: str | None, split_given: bool) -> None:
    split = entry.name("split") if split_given else split
    name = entry.name("filename")
    folder = entry.name("filepath") if entry.content.get("filepath") else ""
    identity = "" if entry.content.get("cocoid") is None else entry.identity("cocoid")
    image_id = found.add_image(identity, str(PurePosixPath(folder, name)), split, entry.where)
    for number, raw in enumerate(entry.get("sentences", (list,), "a list of sentences")):
        sentence = Entry(raw, f"{entry.where}.sentences[{number}]")
        found.add_caption(sentence.identity("sentid"), sentence.get("raw", (str,), "text"), image_id, sentence.where)


KARPATHY = Format("karpathy", "Karpathy's split JSON", refuse_karpathy, read_karpathy)
