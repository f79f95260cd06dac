"""Vectors of a corpus' images and captions; what was embedded once by the same encoder is never embedded again."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cprd_pipeline.corpus.reader import Corpus, Items, Rows
from cprd_pipeline.models.device import plain_name
from cprd_pipeline.models.embedding_cache import EmbeddingCache, Vectors
from cprd_pipeline.models.encoder_brought import brought_folder, read_brought
from cprd_pipeline.models.encoder_identity import encoder_fingerprint
from cprd_pipeline.store.fingerprint import digest_keys
from cprd_pipeline.store.folder import cache_folder

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CorpusEmbeddings:
    """Unit vectors in the order of the rows that were asked for.

    Args:
        images: float32 [I, D].
        captions: float32 [C, D].
        fingerprint: Of the encoder.
        seconds: Wall-clock time, cache reading included.
    """

    images: Vectors
    captions: Vectors
    fingerprint: str
    seconds: float


def embed_corpus(
    encoder: str,
    corpus: Corpus,
    image_rows: Rows,
    caption_rows: Rows,
    *,
    device: "torch.device | str",
    dtype: "torch.dtype | str",
    batch_size: int,
    workers: int,
    fingerprint: str | None = None,
) -> CorpusEmbeddings:
    """Embed rows of a corpus through the cache in `<cache>/embeddings/<fingerprint>/`.

    The model, and torch, is loaded only when a content is missing there, once for both sides. A killed run loses the chunk in
    flight.
    Brought embeddings are read where they lie, and the cache, the device and the number type have no part in them.

    Args:
        encoder: Folder or hub name of a dual encoder, or `embeddings:FOLDER` (see `encoder_brought`).
        corpus: The corpus.
        image_rows: int64 [I], I >= 1.
        caption_rows: int64 [C], C >= 1.
        device: Where to compute, or its name.
        dtype: Number type to compute with, or its name; vectors are kept in float32.
        batch_size: Items that go through the model together.
        workers: Processes that decode and preprocess images; 0: this one does.
        fingerprint: Of the encoder, from a caller that knows it already: reading all weights for it takes seconds.

    Raises:
        ModelError: No dual encoder, or it gave NaN, infinity or a zero vector; the message names the item. Or brought
            embeddings that do not fit the corpus.
        MissingDependencyError: The encoder needs a package that is not installed.
        CorpusError: An image is not what was prepared.
    """
    start = time.perf_counter()
    fingerprint = fingerprint or encoder_fingerprint(encoder, dtype)
    if (brought := brought_folder(encoder)) is not None:
        vectors = read_brought(brought, corpus.images, image_rows, corpus.captions, caption_rows)
        return CorpusEmbeddings(*vectors, fingerprint, time.perf_counter() - start)
    folder = cache_folder() / "embeddings" / fingerprint
    images, captions = EmbeddingCache(folder / "images"), EmbeddingCache(folder / "captions")
    missing_images = _missing(images, corpus.images, image_rows)
    missing_captions = _missing(captions, corpus.captions, caption_rows)
    if len(missing_images) or len(missing_captions):
        import torch

        from cprd_pipeline.models.embed_items import embed_items

        embed_items(
            encoder,
            corpus,
            (missing_images, images),
            (missing_captions, captions),
            device=torch.device(device),
            dtype=getattr(torch, plain_name(dtype)),
            batch_size=batch_size,
            workers=workers,
        )
    return CorpusEmbeddings(
        images.gather(corpus.images.digests[image_rows]),
        captions.gather(corpus.captions.digests[caption_rows]),
        fingerprint,
        time.perf_counter() - start,
    )


def _missing(cache: EmbeddingCache, items: Items, rows: Rows) -> Rows:
    """One row of each content that has no vector, in the order of the corpus: as its images lie on the disk."""
    _, first = np.unique(digest_keys(items.digests[rows]), return_index=True)
    distinct = np.sort(rows[first])
    return distinct[cache.missing(items.digests[distinct])]
