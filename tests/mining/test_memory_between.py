"""Between embedding and searching: the memory of a GPU that torch keeps for itself is what FAISS then lacks."""

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.models import embed_items
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.models.embedding_cache import EmbeddingCache
from tests.tiny_encoders import simple_corpus


@pytest.mark.parametrize(("device", "emptied"), [("cuda", 1), ("cpu", 0)])
def test_torch_gives_back_a_gpus_memory_after_embedding(
    device: str, emptied: int, tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the model is gone, which it takes no garbage collection for, and not where there is no GPU; the GPU is pretended."""
    corpus = Corpus(simple_corpus(tmp_path / "corpus", 4))
    models: list[weakref.ref[torch.Tensor]] = []
    left: list[list[torch.Tensor | None]] = []

    def load(folder: str, _: torch.device, dtype: torch.dtype) -> DualEncoder:
        loaded = DualEncoder.load(folder, torch.device("cpu"), dtype)
        models.extend(weakref.ref(tensor) for tensor in loaded.model.parameters())
        return loaded

    monkeypatch.setattr(embed_items, "load_encoder", load)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.append([made() for made in models]))
    embed_items.embed_items(
        str(clip_folder),
        corpus,
        (np.arange(4), EmbeddingCache(tmp_path / "images")),
        (np.arange(8), EmbeddingCache(tmp_path / "captions")),
        device=torch.device(device),
        dtype=torch.float32,
        batch_size=4,
        workers=0,
    )
    assert len(models) > 1
    assert left == [[None] * len(models)] * emptied
