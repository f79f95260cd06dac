"""Vectors of a corpus' images and captions; what was embedded once by the same encoder is never embedded again."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus, Items, Rows
from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.dual_encoder import DualEncoder, encoder_fingerprint, load_encoder
from cprd_pipeline.models.embedding_cache import EmbeddingCache, Vectors
from cprd_pipeline.models.encoder_brought import brought_folder, read_brought
from cprd_pipeline.models.encoder_sentence import SentenceEncoder
from cprd_pipeline.progress import progress_bar
from cprd_pipeline.store.fingerprint import digest_keys
from cprd_pipeline.store.folder import cache_folder

IMAGE_CHUNK = 1024
CAPTION_CHUNK = 8192
"""Items of a chunk: what a killed run loses at most. Not a setting, since it shapes the batches and so the last bits."""

# A vector of float32 that was divided by its length is this close to length one; NaN and zero are not.
_LENGTH_TOLERANCE = 1e-3

_Encoder = DualEncoder | SentenceEncoder


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
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
    workers: int,
) -> CorpusEmbeddings:
    """Embed rows of a corpus through the cache in `<cache>/embeddings/<fingerprint>/`.

    The model is loaded only when a content is missing there, once for both sides. A killed run loses the chunk in flight.
    Brought embeddings are read where they lie, and the cache, the device and the number type have no part in them.

    Args:
        encoder: Folder or hub name of a dual encoder, or `embeddings:FOLDER` (see `encoder_brought`).
        corpus: The corpus.
        image_rows: int64 [I], I >= 1.
        caption_rows: int64 [C], C >= 1.
        device: Where to compute.
        dtype: Number type to compute with; vectors are kept in float32.
        batch_size: Items that go through the model together.
        workers: Processes that decode images; 0 decodes in this one.

    Raises:
        ModelError: No dual encoder, or it gave NaN, infinity or a zero vector; the message names the item. Or brought
            embeddings that do not fit the corpus.
        MissingDependencyError: The encoder needs a package that is not installed.
        CorpusError: An image is not what was prepared.
    """
    start = time.perf_counter()
    fingerprint = encoder_fingerprint(encoder, dtype)
    if (brought := brought_folder(encoder)) is not None:
        vectors = read_brought(brought, corpus.images, image_rows, corpus.captions, caption_rows)
        return CorpusEmbeddings(*vectors, fingerprint, time.perf_counter() - start)
    folder = cache_folder() / "embeddings" / fingerprint
    images, captions = EmbeddingCache(folder / "images"), EmbeddingCache(folder / "captions")
    missing_images = _missing(images, corpus.images, image_rows)
    missing_captions = _missing(captions, corpus.captions, caption_rows)
    if len(missing_images) or len(missing_captions):
        with torch.inference_mode():
            model = load_encoder(encoder, device, dtype)
            _embed_images(model, corpus, missing_images, images, batch_size, workers)
            _embed_captions(model, corpus, missing_captions, captions, batch_size)
    return CorpusEmbeddings(
        images.gather(corpus.images.digests[image_rows]),
        captions.gather(corpus.captions.digests[caption_rows]),
        fingerprint,
        time.perf_counter() - start,
    )


def _missing(cache: EmbeddingCache, items: Items, rows: Rows) -> Rows:
    """The first row of each content that has no vector, in the order of `rows`."""
    _, first = np.unique(digest_keys(items.digests[rows]), return_index=True)
    distinct = rows[np.sort(first)]
    return distinct[cache.missing(items.digests[distinct])]


def _cut(rows: Rows, size: int) -> Iterator[Rows]:
    """Consecutive pieces; the same rows are always cut at the same places."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _embed_images(model: _Encoder, corpus: Corpus, rows: Rows, cache: EmbeddingCache, batch_size: int, workers: int) -> None:
    if not len(rows):
        return
    with ImageReader(corpus, workers) as reader, progress_bar("embedding images", len(rows), "images") as bar:
        stream = reader.stream(rows)
        for chunk in _cut(rows, IMAGE_CHUNK):
            parts = []
            for batch in _cut(chunk, batch_size):
                pictures = [next(stream)[1] for _ in batch]
                parts.append(_to_numpy(model.embed_pictures(pictures)))
                bar.advance(len(batch))
            cache.add(corpus.images.digests[chunk], _checked(np.concatenate(parts), "image", corpus.images, chunk))
    cache.refresh()


def _embed_captions(model: _Encoder, corpus: Corpus, rows: Rows, cache: EmbeddingCache, batch_size: int) -> None:
    if not len(rows):
        return
    with progress_bar("embedding captions", len(rows), "captions") as bar:
        for chunk in _cut(rows, CAPTION_CHUNK):
            # Captions of like length share a batch, so that little of it is padding; the chunk is written by length too.
            by_length = chunk[np.argsort(model.token_counts([corpus.texts[row] for row in chunk]), kind="stable")]
            parts = []
            for batch in _cut(by_length, batch_size):
                parts.append(_to_numpy(model.embed_captions([corpus.texts[row] for row in batch])))
                bar.advance(len(batch))
            cache.add(corpus.captions.digests[by_length], _checked(np.concatenate(parts), "caption", corpus.captions, by_length))
    cache.refresh()


def _to_numpy(vectors: Tensor) -> Vectors:
    array: Vectors = vectors.to("cpu", torch.float32).numpy()
    return array


def _checked(vectors: Vectors, kind: str, items: Items, rows: Rows) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(~(np.abs(lengths - 1) < _LENGTH_TOLERANCE))
    if len(bad):
        what = "zero" if lengths[bad[0]] == 0 else "not finite"
        raise ModelError(
            f"the embedding of {kind} {items.ids[rows[bad[0]]]!r} is {what} ({len(bad)} of {len(rows)} in this chunk)",
            expected="vectors of length one",
            do="check the model's weights, or set dtype to float32",
        )
    return vectors
