"""The embedding cache: nothing is embedded twice, a killed run goes on, damage is found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import ModelError, StoreError
from cprd_pipeline.models import embed_items
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.models.embedding_cache import EmbeddingCache
from cprd_pipeline.models.embeddings import CorpusEmbeddings, embed_corpus
from cprd_pipeline.store.folder import cache_folder
from tests.tiny_encoders import random_image, simple_corpus, tiny_clip, write_corpus

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP folder."""
    return tiny_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """20 pictures with two captions each."""
    return Corpus(simple_corpus(tmp_path / "corpus", 20))


def embed(encoder: Path, corpus: Corpus, images: Any = None, captions: Any = None, batch_size: int = 8) -> CorpusEmbeddings:
    """Embed some rows, or all of them."""
    images = np.arange(len(corpus.images)) if images is None else np.asarray(images)
    captions = np.arange(len(corpus.captions)) if captions is None else np.asarray(captions)
    return embed_corpus(str(encoder), corpus, images, captions, device=CPU, dtype=torch.float32, batch_size=batch_size, workers=0)


def count_embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the image batches that go through the model from now on."""
    sizes: list[int] = []
    original = DualEncoder.embed_images

    def counting(self: DualEncoder, pixel_values: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixel_values))
        return original(self, pixel_values)

    monkeypatch.setattr(DualEncoder, "embed_images", counting)
    return sizes


def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a model that is loaded fails the test."""

    def refuse(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(DualEncoder, "load", refuse)


def cached_bytes() -> dict[str, bytes]:
    """Every file of the cache."""
    return {path.name: path.read_bytes() for path in sorted((cache_folder() / "embeddings").rglob("*")) if path.is_file()}


def test_rows_are_those_that_were_asked_for(clip: Path, corpus: Corpus) -> None:
    """Any rows in any order, repeated ones too, equal the model's own vectors of these items."""
    found = embed(clip, corpus, images=[7, 3, 7], captions=[39, 0])
    model = DualEncoder.load(str(clip), CPU, torch.float32)
    with torch.no_grad(), ImageReader(corpus) as reader:
        images = model.embed_images(model.pixels([reader.read(row) for row in (7, 3, 7)]))
        captions = model.embed_texts(**model.tokens([corpus.texts[39], corpus.texts[0]]))
    np.testing.assert_allclose(found.images, images.numpy(), atol=1e-6)
    np.testing.assert_allclose(found.captions, captions.numpy(), atol=1e-6)
    assert found.images.dtype == found.captions.dtype == np.float32
    assert found.fingerprint == model.fingerprint


def test_what_is_there_needs_no_model(clip: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call gives the same bytes and loads nothing; so does a part of the rows."""
    first = embed(clip, corpus)
    forbid_loading(monkeypatch)
    second = embed(clip, corpus)
    assert first.images.tobytes() == second.images.tobytes()
    assert first.captions.tobytes() == second.captions.tobytes()
    assert np.array_equal(embed(clip, corpus, images=[5], captions=[2, 1]).captions, first.captions[[2, 1]])


def test_a_grown_corpus_embeds_what_is_new(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content counts, not the id: of 20 pictures of another corpus, 15 are known and 5 go through the model."""
    known = embed(clip, Corpus(simple_corpus(tmp_path / "small", 15)))
    sizes = count_embedded(monkeypatch)
    grown = embed(clip, Corpus(simple_corpus(tmp_path / "large", 20)))
    assert sum(sizes) == 5
    assert np.array_equal(grown.images[:15], known.images)


def test_equal_contents_are_embedded_once(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ids of one picture cost one embedding and have one vector."""
    images = [(name, random_image(seed), "train") for name, seed in (("a", 1), ("b", 2), ("c", 1), ("d", 1))]
    corpus = Corpus(write_corpus(tmp_path / "corpus", images, [("x", "a b", "train"), ("y", "a b", "train")], []))
    sizes = count_embedded(monkeypatch)
    found = embed(clip, corpus)
    assert sum(sizes) == 2
    assert np.array_equal(found.images[0], found.images[3])
    assert not np.array_equal(found.images[0], found.images[1])
    assert np.array_equal(found.captions[0], found.captions[1])


def test_another_encoder_has_its_own_vectors(clip: Path, corpus: Corpus, tmp_path: Path) -> None:
    """Vectors of one set of weights are never taken for another's."""
    other = tiny_clip(tmp_path / "other", seed=1)
    assert not np.allclose(embed(clip, corpus).images, embed(other, corpus).images, atol=1e-3)


def test_an_interrupted_run_goes_on_at_the_chunk(
    clip: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was finished before the crash is not embedded again, and the files end up as without a crash."""
    monkeypatch.setattr(embed_items, "IMAGE_CHUNK", 6)
    monkeypatch.setattr(embed_items, "CAPTION_CHUNK", 12)
    embed(clip, corpus, batch_size=4)
    unbroken = cached_bytes()
    monkeypatch.setenv("CPRD_CACHE", str(tmp_path / "again"))

    original = DualEncoder.embed_images
    calls = iter(range(100))

    def failing(self: DualEncoder, pixel_values: torch.Tensor) -> torch.Tensor:
        if next(calls) == 5:  # the second batch of the third chunk
            raise KeyboardInterrupt
        return original(self, pixel_values)

    with monkeypatch.context() as patch:
        patch.setattr(DualEncoder, "embed_images", failing)
        with pytest.raises(KeyboardInterrupt):
            embed(clip, corpus, batch_size=4)
    assert len([name for name in cached_bytes() if name.endswith(".json")]) == 2
    sizes = count_embedded(monkeypatch)
    embed(clip, corpus, batch_size=4)
    assert sum(sizes) == 20 - 12
    assert cached_bytes() == unbroken


def test_a_chunk_without_its_marker_does_not_exist(clip: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors whose writing was cut short before the marker are made again."""
    embed(clip, corpus)
    for marker in (cache_folder() / "embeddings").rglob("images/*.json"):
        marker.unlink()
    sizes = count_embedded(monkeypatch)
    embed(clip, corpus)
    assert sum(sizes) == 20


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_damaged_vectors_are_set_aside_and_made_again(
    clip: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    """A flipped byte on the disk reaches no similarity: the chunk is reported and embedded anew."""
    first = embed(clip, corpus)
    (path,) = (p for p in (cache_folder() / "embeddings").rglob("images/*.npy") if "digests" not in p.name)
    if damage == "changed":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
    else:
        path.unlink()
    assert np.array_equal(embed(clip, corpus).images, first.images)
    assert "set aside" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["swapped", "cut short", "empty", "gone", "marker empty", "marker a list"])
def test_damaged_records_of_a_chunk_are_noticed(
    clip: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    """Which content a row belongs to counts as much as the row."""
    first = embed(clip, corpus)
    (path,) = (cache_folder() / "embeddings").rglob("images/*.digests.npy")
    (marker,) = (cache_folder() / "embeddings").rglob("images/*.json")
    if damage == "swapped":
        digests = np.load(path)
        digests[[0, 1]] = digests[[1, 0]]
        np.save(path, digests)
    elif damage in ("cut short", "empty"):
        path.write_bytes(path.read_bytes()[:100] if damage == "cut short" else b"")
    elif damage == "gone":
        path.unlink()
    else:
        marker.write_text("[]" if damage == "marker a list" else "")
    assert np.array_equal(embed(clip, corpus).images, first.images)
    assert "set aside" in capsys.readouterr().err


def test_captions_of_like_length_share_a_batch(clip: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are filled by length, so that hardly any token is padding."""
    spread = []
    original = DualEncoder.tokens

    def watching(self: DualEncoder, captions: list[str]) -> dict[str, torch.Tensor]:
        tokens = original(self, captions)
        spread.append((1 - tokens["attention_mask"]).sum().item())
        return tokens

    monkeypatch.setattr(DualEncoder, "tokens", watching)
    embed(clip, corpus, batch_size=8)
    lengths = np.array([len(text.split()) for text in corpus.texts])
    unsorted = sum(int((part.max() - part).sum()) for part in lengths.reshape(-1, 8))
    assert sum(spread) < unsorted / 4


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "not finite"), (0.0, "zero")])
def test_vectors_that_say_nothing_are_refused(clip: Path, corpus: Corpus, tmp_path: Path, value: float, message: str) -> None:
    """NaN and zero vectors stop the run, the item is named, and nothing of the chunk is kept."""
    spoiled = tiny_clip(tmp_path / "spoiled")
    weights = load_file(spoiled / "model.safetensors")
    weights["visual_projection.weight"].fill_(value)
    save_file(weights, spoiled / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"embedding of image 'image-000' is {message}"):
        embed(spoiled, corpus)
    assert not cached_bytes()


def test_a_cache_asked_for_what_it_lacks_says_so(tmp_path: Path) -> None:
    """No row of another content is given in place of a missing one."""
    cache = EmbeddingCache(tmp_path / "cache")
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 256, size=(50, 16), dtype=np.uint8)
    digests[:25, -1] = 0  # digests that end in a zero byte
    vectors = rng.standard_normal((50, 4)).astype(np.float32)
    cache.add(digests[:10], vectors[:10])
    cache.add(digests[10:40], vectors[10:40])
    cache.refresh()
    order = rng.permutation(40)
    assert np.array_equal(cache.gather(digests[order]), vectors[order])
    assert cache.missing(digests).tolist() == [False] * 40 + [True] * 10
    with pytest.raises(StoreError, match="1 embeddings are not there"):
        cache.gather(digests[39:41])
