"""A corpus folder without pictures, for what looks at rows and contents only."""

from pathlib import Path

import pyarrow as pa

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import CAPTIONS, IMAGES, POSITIVES


def corpus_of(
    folder: Path,
    pictures: list[str],
    texts: list[str],
    pairs: list[tuple[int, int]],
    image_splits: dict[int, str] | None = None,
    caption_splits: dict[int, str] | None = None,
) -> Corpus:
    """A corpus of images i0, i1, ... and captions c0, c1, ...

    Args:
        folder: Where it goes.
        pictures: Content of each image; equal strings are one content.
        texts: Of the captions.
        pairs: Positives.
        image_splits: Split of images that are not of train.
        caption_splits: The same for captions.
    """
    images, captions = ([f"{side}{row}" for row in range(len(all_))] for side, all_ in (("i", pictures), ("c", texts)))
    of_images, of_captions = (
        [(splits or {}).get(row, "train") for row in range(len(names))]
        for splits, names in ((image_splits, images), (caption_splits, captions))
    )
    size = pa.array([8] * len(images), pa.int32())
    writer = OutputWriter(folder, "corpus", {"image_root": "."}, {})
    digests = [bytes_digest(content.encode()) for content in pictures]
    columns = [images, images, [None] * len(images), digests, size, size, of_images]
    writer.write_table("images.parquet", pa.table(columns, schema=IMAGES))
    columns = [captions, texts, [bytes_digest(text.encode()) for text in texts], of_captions]
    writer.write_table("captions.parquet", pa.table(columns, schema=CAPTIONS))
    columns = [[images[image] for image, _ in pairs], [captions[caption] for _, caption in pairs]]
    writer.write_table("positives.parquet", pa.table(columns, schema=POSITIVES))
    writer.finish()
    return Corpus(folder)
