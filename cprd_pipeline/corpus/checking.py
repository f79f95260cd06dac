"""`prepare --check`: reads the annotations as `prepare` would, looks at the first pictures, and writes nothing."""

from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from cprd_pipeline.corpus.captions import measure_lengths
from cprd_pipeline.corpus.closure import Content, count_duplicates, count_leaks
from cprd_pipeline.corpus.formats.records import ImageRecord, Records
from cprd_pipeline.corpus.holdout import check_new_names
from cprd_pipeline.corpus.inspection import inspect
from cprd_pipeline.corpus.intake import Intake, Taken, check_bad, doubts_about_images
from cprd_pipeline.corpus.roots import Root
from cprd_pipeline.corpus.settings import UNPAIRED_SPLIT, PrepareSettings
from cprd_pipeline.corpus.splits import keep_images
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.report import StageReport

_DECODED, _SHOWN, _TOLD = 8, 3, 5


def run_check(settings: PrepareSettings) -> StageReport:
    """What `prepare` would find, without decoding more than the first pictures.

    Returns:
        A report that is saved nowhere. Its result `stops` holds the errors that would stop `prepare`, as far as they show by now.

    Raises:
        CorpusError: The annotations cannot be read.
    """
    if settings.source == "scenes":
        sizes = {split: {"images": n.images, "captions": n.images * n.captions_each} for split, n in settings.scenes.splits.items()}
        unpaired = {"images": settings.scenes.unpaired_images, "captions": settings.scenes.unpaired_captions}
        sizes |= {UNPAIRED_SPLIT: unpaired} if any(unpaired.values()) else {}
        return StageReport("prepare --check", settings.as_json(), {"splits": sizes, "stops": []}, _split_rows("scenes", sizes))
    intake = Intake(settings)
    taken = intake.read()
    records = taken.records
    bad_images = _bad_images(records, records.image_root)
    splits = _count_splits(records)
    texts = _contents(records)
    results: dict[str, Any] = {
        "splits": splits,
        "stops": _stops(settings, taken, bad_images),
        "missing_or_bad_images": len(bad_images),
        "splits_without_these": _count_splits(_without(records, bad_images)) if bad_images else splits,
        "bad_captions": len(taken.bad_captions),
        "duplicate_captions": count_duplicates(texts),
        "leaked_captions": count_leaks(texts),
        "caption_characters": measure_lengths(caption.text for caption in records.captions),
        "notes": [*doubts_about_images(len(bad_images), len(records.images)), *records.notes],
        **taken.counts,
    }
    inside = all(image.path is None for image in records.images)
    place = ("images", "in the files themselves" if inside else f"in {records.image_root}")
    table = [*_split_rows(intake.format.title, splits), place, *_found(results)]
    if settings.holdout.shares:
        table.append(("holdout", "drawn by content, once all pictures are read"))
    return StageReport("prepare --check", settings.as_json(), results, table + _first_rows(records) + _problems(results))


def _split_rows(source: str, splits: dict[str, dict[str, int]]) -> list[tuple[str, str]]:
    return [("source", source), *((split, _told(n)) for split, n in splits.items())]


def _told(n: dict[str, int]) -> str:
    return f"{n['images']:,} images, {n['captions']:,} captions"


def _count_splits(records: Records) -> dict[str, dict[str, int]]:
    split_of = {image.image_id: image.split for image in records.images}
    images = Counter(split_of.values())
    captions = Counter(split_of[c.image_ids[0]] if c.image_ids else c.split for c in records.captions)
    return {split: {"images": images[split], "captions": captions[split]} for split in dict.fromkeys([*images, *captions])}


def _without(records: Records, bad_images: list[tuple[str, str]]) -> Records:
    bad = {image_id for image_id, _ in bad_images}
    return keep_images(records, [image for image in records.images if image.image_id not in bad])


def _contents(records: Records) -> list[Content]:
    split_of = {image.image_id: image.split for image in records.images}
    return [Content(bytes_digest(c.text.encode()), split_of[c.image_ids[0]] if c.image_ids else c.split) for c in records.captions]


def _bad_images(records: Records, root: Root) -> list[tuple[str, str]]:
    """Names and reasons: every file of a local folder must be there, the first ones must decode."""
    bad = {image.image_id: seen for image in records.images[:_DECODED] if (seen := inspect(root, image).reason)}
    if isinstance(root, Path):
        gone = (image for image in islice(records.images, _DECODED, None) if not _is_there(root, image))
        bad |= {image.image_id: f"{root / (image.path or '')}: No such file" for image in gone}
    return list(bad.items())


def _is_there(root: Path, image: ImageRecord) -> bool:
    return image.path is None or (root / image.path).is_file()


def _stops(settings: PrepareSettings, taken: Taken, bad_images: list[tuple[str, str]]) -> list[str]:
    records = taken.records
    bad_captions = [(bad.caption.caption_id, bad.reason) for bad in taken.bad_captions]
    checks = (
        partial(check_new_names, (image.split for image in records.images), settings.holdout),
        partial(check_bad, bad_captions, len(records.captions) + len(bad_captions), settings.most_bad_captions, "captions"),
        partial(check_bad, bad_images, len(records.images), settings.most_bad_images, "images"),
    )
    stops = []
    for check in checks:
        try:
            check()
        except CorpusError as error:
            stops.append(str(error))
    return stops


def _found(results: dict[str, Any]) -> list[tuple[str, str]]:
    length = results["caption_characters"]
    rows = [
        ("texts", f"{results['duplicate_captions']:,} duplicates in a split, {results['leaked_captions']:,} leaks between splits")
    ]
    if length:
        told = f"{length['shortest']:,} to {length['longest']:,}, median {length['median']:,}, 95 % up to {length['p95']:,}"
        rows.append(("characters a caption", told))
    if bad := results["missing_or_bad_images"]:
        left = [f"{split} {_told(n)}" for split, n in results["splits_without_these"].items()]
        rows += [("images missing or bad", f"{bad:,}, counted above"), ("without these", "; ".join(left) or "nothing")]
    for key, what in (
        ("bad_captions", "bad captions"),
        ("unlisted_images", "images in no list, left out"),
        ("unknown_listed_names", "listed names that are not there"),
    ):
        if results.get(key):
            rows.append((what, f"{results[key]:,}"))
    return rows


def _first_rows(records: Records) -> list[tuple[str, str]]:
    return [
        (f"row {number}", f"{', '.join(c.image_ids) or 'no image'}: {c.text[:80]!r}")
        for number, c in enumerate(records.captions[:_SHOWN], start=1)
    ]


def _problems(results: dict[str, Any]) -> list[tuple[str, str]]:
    notes = [("note", note) for note in results["notes"][:_TOLD]]
    return notes + ([("problem", stop) for stop in results["stops"]] or [("problems", "none so far")])
