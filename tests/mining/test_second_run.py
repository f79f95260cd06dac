"""A run whose vectors are all there: it needs neither the model nor the libraries that models need."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.models import device
from cprd_pipeline.models.embedding_cache import EmbeddingCache
from cprd_pipeline.models.encoder_identity import encoder_fingerprint
from cprd_pipeline.store.folder import InputFolder, cache_folder
from tests.mining.test_mine import mine_settings
from tests.tiny_encoders import simple_corpus

_RUN = """
import sys
from cprd_pipeline.mining.settings import MineSettings
settings = MineSettings.model_validate_json(sys.argv[1])
from cprd_pipeline.mining.run import run
report = run(settings)
heavy = {"torch", "transformers", "sentence_transformers", "huggingface_hub", "polars", "deltalake"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""


def unit(count: int, seed: int) -> np.ndarray:
    """Random float32 vectors of length one, [count, 6]."""
    vectors = np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brought(folder: Path, corpus: Corpus) -> str:
    """Vectors in files of the user's."""
    folder.mkdir()
    for name, items in (("images", corpus.images), ("captions", corpus.captions)):
        np.save(folder / f"{name}.npy", unit(len(items), len(name)))
        (folder / f"{name}.ids.txt").write_text("\n".join(items.ids))
    return f"embeddings:{folder}"


def cached(encoder: Path, corpus: Corpus) -> str:
    """Vectors of an encoder in the cache, as an earlier run leaves them."""
    for name, items in (("images", corpus.images), ("captions", corpus.captions)):
        cache = EmbeddingCache(cache_folder() / "embeddings" / encoder_fingerprint(str(encoder), "float32") / name)
        cache.add(items.digests, unit(len(items), len(name)))
    return str(encoder)


def encoder_of(kind: str, tmp_path: Path, clip_folder: Path, corpus: Corpus) -> str:
    """An encoder of a kind, its vectors at hand."""
    if kind == "brought":
        return brought(tmp_path / "brought", corpus)
    if kind == "transformers":
        return cached(clip_folder, corpus)
    folder = tmp_path / "sentence"
    folder.mkdir()
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "some.Module"}]))
    (folder / "model.safetensors").write_bytes((clip_folder / "model.safetensors").read_bytes())
    return cached(folder, corpus)


@pytest.mark.skipif(device.device_name("auto") != "cpu", reason="where there is a GPU, torch is asked about it")
@pytest.mark.parametrize("kind", ["brought", "transformers", "sentence-transformers"])
def test_no_library_for_models_is_imported(kind: str, tmp_path: Path, clip_folder: Path) -> None:
    """With the device and the number type left to the software, as by default; the candidates are those of such a corpus."""
    path = simple_corpus(tmp_path / "corpus", 8)
    encoder = encoder_of(kind, tmp_path, clip_folder, Corpus(path))
    settings = mine_settings(tmp_path, path, Path(encoder), device="auto", dtype="auto")
    command = [sys.executable, "-c", _RUN, settings.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(InputFolder(settings.output, "candidates").tables("i2t-")) == 8
