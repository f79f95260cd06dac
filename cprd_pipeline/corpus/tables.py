"""From records and decoded images to the tables of the corpus folder, and the counts that the report tells."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.corpus.captions import BadCaption, measure_lengths
from cprd_pipeline.corpus.closure import Content, close_positives, count_duplicates, count_leaks
from cprd_pipeline.corpus.formats.records import CaptionRecord, ImageRecord, Records
from cprd_pipeline.corpus.holdout import draw_holdout
from cprd_pipeline.corpus.inspection import Inspected
from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.corpus.settings import HoldoutSettings
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.schemas import CAPTIONS, IMAGES, POSITIVES, REJECTED

_CHUNK_BYTES = 2**31 - 1
"""What the offsets of `string` reach: less would cut tables that always were one chunk, and change their files."""


@dataclass(frozen=True)
class CorpusTables:
    """The tables of one corpus.

    Args:
        images: As `store.schemas.IMAGES`; without the bad ones.
        captions: As `CAPTIONS`; without those whose images are all bad.
        positives: As `POSITIVES`, closed over equal digests, in the order of images, then captions.
        rejected: As `REJECTED`: bad images, then bad captions, which have no path.
        counts: Images and captions per split, positives, duplicates, leaks, unpaired, rejected, lengths.
        kept: The records of the table of images.
        digests: Of those images' files.
    """

    images: pa.Table
    captions: pa.Table
    positives: pa.Table
    rejected: pa.Table
    counts: dict[str, Any]
    kept: list[ImageRecord]
    digests: list[bytes]


def build_tables(
    records: Records,
    inspected: Sequence[Inspected],
    bad_captions: Sequence[BadCaption] = (),
    holdout: HoldoutSettings | None = None,
    *,
    packed: bool = False,
) -> CorpusTables:
    """Build all tables.

    Args:
        records: What the source yielded, without bad captions.
        inspected: What decoding told of each of its images.
        bad_captions: Captions that cannot be used.
        holdout: How splits are drawn; None leaves them as they are.
        packed: Whether the images' files go to shards of their own, and not into the table.

    Raises:
        CorpusError: The holdout does not fit, or equal contents make positives without end.
    """
    pairs = list(zip(records.images, inspected, strict=True))
    good = [(image, seen) for image, seen in pairs if not seen.reason]
    bad = [(image, seen) for image, seen in pairs if seen.reason]
    captions, owners = _usable_captions(records.captions, {image.image_id: row for row, (image, _) in enumerate(good)})
    digests = [seen.digest for _, seen in good]
    texts = [bytes_digest(caption.text.encode()) for caption in captions]
    splits = _splits([image.split for image, _ in good], digests, texts, owners, holdout)
    image_contents = [Content(digest, split) for digest, split in zip(digests, splits, strict=True)]
    caption_contents = [
        Content(text, splits[rows[0]] if rows else caption.split)
        for caption, rows, text in zip(captions, owners, texts, strict=True)
    ]
    annotated = [(image, row) for row, rows in enumerate(owners) for image in rows]
    positives = close_positives(
        image_contents,
        caption_contents,
        annotated,
        name_image=lambda row: f"image {good[row][0].image_id}",
        name_caption=lambda row: f"caption {captions[row].caption_id} ({captions[row].text[:40]!r})",
    )
    counts = _count(image_contents, caption_contents) | {
        "positives": len(positives),
        "annotated_positives": len(annotated),
        "unpaired_images": len(good) - len({image for image, _ in annotated}),
        "unpaired_captions": sum(not rows for rows in owners),
        "rejected_images": len(bad),
        "rejected_captions": len(records.captions) - len(captions),
        "bad_captions": len(bad_captions),
        "caption_characters": measure_lengths(caption.text for caption in captions),
    }
    return CorpusTables(
        images=_image_table(good, splits, packed=packed),
        captions=_caption_table(captions, caption_contents),
        positives=_positive_table([image.image_id for image, _ in good], [caption.caption_id for caption in captions], positives),
        rejected=_rejected_table(bad, bad_captions),
        counts=counts,
        kept=[image for image, _ in good],
        digests=digests,
    )


def _usable_captions(
    captions: Sequence[CaptionRecord], row_of: Mapping[str, int]
) -> tuple[list[CaptionRecord], list[tuple[int, ...]]]:
    """Captions of at least one good image, and those that never had one; with the rows of their good images."""
    kept, owners = [], []
    for caption in captions:
        rows = tuple(row_of[owner] for owner in caption.image_ids if owner in row_of)
        if rows or not caption.image_ids:
            kept.append(caption)
            owners.append(rows)
    return kept, owners


def _splits(
    given: list[str],
    digests: Sequence[bytes],
    texts: Sequence[bytes],
    owners: Sequence[tuple[int, ...]],
    holdout: HoldoutSettings | None,
) -> list[str]:
    """Split of each image: as the source gave it, or with the holdout drawn."""
    if holdout is None or not holdout.shares:
        return given
    return draw_holdout(given, digests, _images_of_texts(texts, owners), [rows for rows in owners if len(rows) > 1], holdout)


def _images_of_texts(texts: Sequence[bytes], owners: Sequence[tuple[int, ...]]) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = defaultdict(list)
    for text, rows in zip(texts, owners, strict=True):
        found[text] += rows
    return found


def _image_table(images: Sequence[tuple[ImageRecord, Inspected]], splits: Sequence[str], *, packed: bool) -> pa.Table:
    columns = {
        "image_id": [image.image_id for image, _ in images],
        "path": [image.path for image, _ in images],
        "bytes": [None if packed else image.content for image, _ in images],
        "digest": [seen.digest for _, seen in images],
        "width": [seen.width for _, seen in images],
        "height": [seen.height for _, seen in images],
        "split": splits,
    }
    return pa.table(columns, schema=IMAGES)


def _caption_table(captions: Sequence[CaptionRecord], contents: Sequence[Content]) -> pa.Table:
    columns = {
        "caption_id": [caption.caption_id for caption in captions],
        "text": [caption.text for caption in captions],
        "digest": [content.digest for content in contents],
        "split": [content.split for content in contents],
    }
    return pa.table(columns, schema=CAPTIONS)


def _positive_table(image_ids: Sequence[str], caption_ids: Sequence[str], positives: Rows) -> pa.Table:
    columns = [_id_column(ids, rows) for ids, rows in zip((image_ids, caption_ids), positives.T, strict=True)]
    return pa.table(columns, schema=POSITIVES)


def _id_column(ids: Sequence[str], rows: Rows) -> pa.ChunkedArray:
    """The id of each row; in several chunks where they are more than one array of `string` can hold."""
    strings = pa.array(ids, pa.large_string())
    ends = np.cumsum(pc.binary_length(strings).to_numpy()[rows], dtype=np.int64)
    chunks, start = [], 0
    while start < len(rows):
        stop = int(np.searchsorted(ends, _CHUNK_BYTES + (ends[start - 1] if start else 0), side="right"))
        chunks.append(strings.take(pa.array(rows[start:stop])).cast(pa.string()))
        start = stop
    return pa.chunked_array(chunks, pa.string())


def _rejected_table(images: Sequence[tuple[ImageRecord, Inspected]], captions: Sequence[BadCaption]) -> pa.Table:
    rows: list[tuple[str | None, str | None, str]] = [(image.image_id, image.path, seen.reason) for image, seen in images]
    rows += [(next(iter(bad.caption.image_ids), None), None, f"caption {bad.caption.caption_id}: {bad.reason}") for bad in captions]
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[], [], []], schema=REJECTED)


def _count(images: Sequence[Content], captions: Sequence[Content]) -> dict[str, Any]:
    image_counts, caption_counts = (Counter(item.split for item in side) for side in (images, captions))
    splits = dict.fromkeys([*image_counts, *caption_counts])
    return {
        "splits": {split: {"images": image_counts[split], "captions": caption_counts[split]} for split in splits},
        "images": len(images),
        "captions": len(captions),
        "duplicate_images": count_duplicates(images),
        "duplicate_captions": count_duplicates(captions),
        "leaked_images": count_leaks(images),
        "leaked_captions": count_leaks(captions),
    }
