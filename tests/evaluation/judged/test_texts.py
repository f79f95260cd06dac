"""Free texts are embedded as a corpus' captions are."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import ModelError
from cprd_pipeline.evaluation.judged.texts import text_embedder
from cprd_pipeline.models.embeddings import embed_corpus
from tests.tiny_encoders import simple_corpus, tiny_clip, tiny_siglip

CPU = torch.device("cpu")


def embedder(folder, batch_size=4):
    """On the CPU in float32."""
    return text_embedder(str(folder), device=CPU, dtype=torch.float32, batch_size=batch_size)


@pytest.mark.parametrize("make", [tiny_clip, tiny_siglip])
def test_texts_equal_the_captions_of_a_corpus(tmp_path, make):
    """In the order of the texts, whatever the batches; float32 unit vectors."""
    folder = make(tmp_path / "model")
    corpus = Corpus(simple_corpus(tmp_path / "corpus", 7))
    rows = np.arange(len(corpus.captions))
    known = embed_corpus(
        str(folder), corpus, np.arange(7), rows, device=CPU, dtype=torch.float32, batch_size=64, workers=0
    ).captions
    for batch_size in (1, 4, 100):
        vectors = embedder(folder, batch_size)(corpus.texts)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, known, atol=1e-6)


def test_the_model_is_loaded_once(tmp_path):
    """A second call works without the folder, and gives equal vectors for equal texts."""
    folder = tiny_clip(tmp_path / "model")
    embed = embedder(folder)
    first = embed(["a b c", "d"])
    folder.rename(tmp_path / "elsewhere")
    np.testing.assert_array_equal(embed(["a b c", "d"]), first)


def test_an_embedding_that_is_not_finite(tmp_path):
    """The message holds the text."""
    folder = tiny_clip(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["text_projection.weight"][:] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"the embedding of 'a b c' is not finite \(2 of 2 texts\)"):
        embedder(folder)(["a b c", "d"])


def test_an_encoder_that_is_none(tmp_path):
    """The loader's message comes through."""
    with pytest.raises(ModelError, match="absent"):
        embedder(tmp_path / "absent")(["a"])
