"""Texts that are in no corpus, as a student embeds them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from cprd_pipeline.errors import ModelError
from cprd_pipeline.evaluation.judged.hard_negatives import EmbedTexts
from cprd_pipeline.models.dual_encoder import DualEncoder, load_encoder
from cprd_pipeline.models.encoder_sentence import SentenceEncoder
from cprd_pipeline.progress import progress_bar

# As in models/embed_items.py: rounding moves a unit vector's length less than that; NaN and zero are further off.
_LENGTH_TOLERANCE = 1e-3


def text_embedder(encoder: str, *, device: torch.device, dtype: torch.dtype, batch_size: int) -> EmbedTexts:
    """A function that embeds texts; the model is loaded when it is first called, and kept.

    Texts longer than the model's limit are cut, as captions of a corpus are.

    Args:
        encoder: Folder or hub name of a dual encoder.
        device: Where to compute.
        dtype: Number type to compute with; vectors are float32.
        batch_size: Texts that go through the model together.

    Returns:
        Texts to unit vectors, float32 [N, D] in the order of the texts. It raises ModelError when the encoder is none, or
        gives NaN, infinity or a zero vector; the message holds the text.
    """
    loaded: list[DualEncoder | SentenceEncoder] = []

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            if not loaded:
                loaded.append(load_encoder(encoder, device, dtype))
            return _embed(loaded[0], texts, batch_size)

    return embed


def _embed(model: DualEncoder | SentenceEncoder, texts: Sequence[str], batch_size: int) -> npt.NDArray[np.float32]:
    # Texts of like length share a batch, so that little of it is padding.
    by_length = np.argsort(model.token_counts(texts), kind="stable")
    parts = []
    with progress_bar("embedding texts", len(texts), "texts") as bar:
        for start in range(0, len(by_length), batch_size):
            batch = [texts[row] for row in by_length[start : start + batch_size]]
            parts.append(model.embed_captions(batch).to("cpu", torch.float32).numpy())
            bar.advance(len(batch))
    sorted_vectors = np.concatenate(parts)
    vectors = np.empty_like(sorted_vectors)
    vectors[by_length] = sorted_vectors
    _check_lengths(vectors, texts)
    return vectors


def _check_lengths(vectors: npt.NDArray[np.float32], texts: Sequence[str]) -> None:
    lengths = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(~(np.abs(lengths - 1) < _LENGTH_TOLERANCE))
    if len(bad):
        what = "zero" if lengths[bad[0]] == 0 else "not finite"
        raise ModelError(
            f"the embedding of {texts[bad[0]][:60]!r} is {what} ({len(bad)} of {len(texts)} texts)",
            expected="vectors of length one",
            do="check the model's weights, or set dtype to float32",
        )
