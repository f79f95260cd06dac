"""An encoder run over the items that have no vector yet, chunk by chunk into the cache.

Apart from `embeddings`, since this needs torch, and a run whose vectors are all there does not.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus, Items, Rows
from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.dual_encoder import DualEncoder, load_encoder
from cprd_pipeline.models.embedding_cache import EmbeddingCache, Vectors
from cprd_pipeline.models.encoder_sentence import SentenceEncoder
from cprd_pipeline.progress import progress_bar

IMAGE_CHUNK = 1024
CAPTION_CHUNK = 8192
"""Items of a chunk: what a killed run loses at most. Not a setting, since it shapes the batches and so the last bits."""

# A vector of float32 that was divided by its length is this close to length one; NaN and zero are not.
_LENGTH_TOLERANCE = 1e-3

_Encoder = DualEncoder | SentenceEncoder


def embed_items(
    encoder: str,
    corpus: Corpus,
    images: tuple[Rows, EmbeddingCache],
    captions: tuple[Rows, EmbeddingCache],
    *,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
    workers: int,
) -> None:
    """Load the encoder once and embed rows of both sides; a killed run loses the chunk in flight.

    Args:
        encoder: Folder or hub name of a dual encoder.
        corpus: The corpus.
        images: Rows of different contents, int64 [I], and where their vectors go.
        captions: The same.
        device: Where to compute.
        dtype: Number type to compute with; vectors are kept in float32.
        batch_size: Items that go through the model together.
        workers: Processes that decode and preprocess images; 0: this one does.

    Raises:
        ModelError: No dual encoder, or it gave NaN, infinity or a zero vector; the message names the item.
        MissingDependencyError: The encoder needs a package that is not installed.
        CorpusError: An image is not what was prepared.
    """
    with torch.inference_mode():
        model = load_encoder(encoder, device, dtype)
        name = Path(encoder).name  # several students are embedded one after the other
        _embed_images(model, corpus, *images, batch_size, workers, name)
        _embed_captions(model, corpus, *captions, batch_size, name)
    del model
    if device.type == "cuda":
        # What computes next may not be torch, which would keep the memory: FAISS's indexes want it.
        torch.cuda.empty_cache()


def _cut(rows: Rows, size: int) -> Iterator[Rows]:
    """Consecutive pieces; the same rows are always cut at the same places."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _embed_images(
    model: _Encoder, corpus: Corpus, rows: Rows, cache: EmbeddingCache, batch_size: int, workers: int, name: str
) -> None:
    if not len(rows):
        return
    # Preprocessing takes longer than decoding: the decoding processes do both.
    with ImageReader(corpus, workers, model.preprocess) as reader, progress_bar("embedding images", len(rows), "images") as bar:
        stream = reader.prepared(rows)
        for chunk in _cut(rows, IMAGE_CHUNK):
            parts = []
            for batch in _cut(chunk, batch_size):
                parts.append(_to_numpy(model.embed_prepared([next(stream) for _ in batch])))
                bar.advance(len(batch), name)
            cache.add(corpus.images.digests[chunk], _checked(np.concatenate(parts), "image", corpus.images, chunk))
    cache.refresh()


def _embed_captions(model: _Encoder, corpus: Corpus, rows: Rows, cache: EmbeddingCache, batch_size: int, name: str) -> None:
    if not len(rows):
        return
    with progress_bar("embedding captions", len(rows), "captions") as bar:
        for chunk in _cut(rows, CAPTION_CHUNK):
            # Captions of like length share a batch, so that little of it is padding; the chunk is written by length too.
            by_length = chunk[np.argsort(model.token_counts([corpus.texts[row] for row in chunk]), kind="stable")]
            parts = []
            for batch in _cut(by_length, batch_size):
                parts.append(_to_numpy(model.embed_captions([corpus.texts[row] for row in batch])))
                bar.advance(len(batch), name)
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
