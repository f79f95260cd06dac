"""From records and decoded images to the tables of the corpus folder, and the counts that the report tells."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cprd_pipeline.corpus.closure import Content, close_positives, count_duplicates, count_leaks
from cprd_pipeline.corpus.formats.records import CaptionRecord, ImageRecord, Records
from cprd_pipeline.corpus.inspection import Inspected
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.schemas import CAPTIONS, IMAGES, POSITIVES, REJECTED


@dataclass(frozen=True)
class CorpusTables:
    """The tables of one corpus.

    Args:
        images: As `store.schemas.IMAGES`; without the bad ones.
        captions: As `CAPTIONS`; without those of bad images.
        positives: As `POSITIVES`, closed over equal digests, in the order of images, then captions.
        rejected: As `REJECTED`.
        counts: Images and captions per split, positives, duplicates, leaks, rejected.
    """

    images: pa.Table
    captions: pa.Table
    positives: pa.Table
    rejected: pa.Table
    counts: dict[str, Any]


def build_tables(records: Records, inspected: Sequence[Inspected]) -> CorpusTables:
    """Build all tables.

    Args:
        records: What the source yielded.
        inspected: What decoding told of each of its images.
    """
    pairs = list(zip(records.images, inspected, strict=True))
    good = [(image, seen) for image, seen in pairs if not seen.reason]
    bad = [(image, seen) for image, seen in pairs if seen.reason]
    image_contents = [Content(seen.digest, image.split) for image, seen in good]
    row_of = {image.image_id: row for row, (image, _) in enumerate(good)}
    captions = [caption for caption in records.captions if caption.image_id in row_of]
    owners = [row_of[caption.image_id] for caption in captions]
    caption_contents = [
        Content(bytes_digest(caption.text.encode()), image_contents[owner].split)
        for caption, owner in zip(captions, owners, strict=True)
    ]
    positives = close_positives(image_contents, caption_contents, zip(owners, range(len(owners)), strict=True))
    counts = {
        "splits": _count_splits(image_contents, caption_contents),
        "images": len(good),
        "captions": len(captions),
        "positives": len(positives),
        "annotated_positives": len(owners),
        "duplicate_images": count_duplicates(image_contents),
        "duplicate_captions": count_duplicates(caption_contents),
        "leaked_images": count_leaks(image_contents),
        "leaked_captions": count_leaks(caption_contents),
        "rejected_images": len(bad),
        "rejected_captions": len(records.captions) - len(captions),
    }
    return CorpusTables(
        images=_image_table(good),
        captions=_caption_table(captions, caption_contents),
        positives=pa.table(
            [[good[image][0].image_id for image, _ in positives], [captions[caption].caption_id for _, caption in positives]],
            schema=POSITIVES,
        ),
        rejected=pa.table(
            [[image.image_id for image, _ in bad], [image.path for image, _ in bad], [seen.reason for _, seen in bad]],
            schema=REJECTED,
        ),
        counts=counts,
    )


def _image_table(images: Sequence[tuple[ImageRecord, Inspected]]) -> pa.Table:
    columns = {
        "image_id": [image.image_id for image, _ in images],
        "path": [image.path for image, _ in images],
        "bytes": [image.content for image, _ in images],
        "digest": [seen.digest for _, seen in images],
        "width": [seen.width for _, seen in images],
        "height": [seen.height for _, seen in images],
        "split": [image.split for image, _ in images],
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


def _count_splits(images: Sequence[Content], captions: Sequence[Content]) -> dict[str, dict[str, int]]:
    image_counts, caption_counts = (Counter(item.split for item in side) for side in (images, captions))
    return {split: {"images": image_counts[split], "captions": caption_counts[split]} for split in image_counts}
