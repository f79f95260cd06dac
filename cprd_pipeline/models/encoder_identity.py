"""The digest of everything that shapes an encoder's embeddings; neither the encoder nor torch is loaded for it."""

from typing import TYPE_CHECKING

from cprd_pipeline.models.device import plain_name
from cprd_pipeline.models.encoder_brought import brought_fingerprint, brought_folder, refuse_vectors
from cprd_pipeline.models.loading import model_fingerprint, resolve_model
from cprd_pipeline.models.sentence_identity import is_sentence_encoder, sentence_fingerprint

if TYPE_CHECKING:
    import torch

ADAPTER_VERSION = 1
"""Raised whenever the same weights would give other embeddings through `dual_encoder`; part of the fingerprint."""


def encoder_fingerprint(name: str, dtype: "torch.dtype | str") -> str:
    """Fingerprint of an encoder, without loading it; of brought embeddings, the digest of their files.

    Args:
        name: Local folder, hub name, or `embeddings:FOLDER`.
        dtype: Number type it computes with, or that type's name.

    Raises:
        ModelError: No such model or embeddings.
    """
    if (brought := brought_folder(name)) is not None:
        return brought_fingerprint(brought)
    folder = resolve_model(name)
    refuse_vectors(name, folder)
    if is_sentence_encoder(folder):
        return sentence_fingerprint(folder, dtype)
    return model_fingerprint(folder, role="dual_encoder", dtype=plain_name(dtype), adapter=ADAPTER_VERSION)
