"""Pictures one by one, in whatever process, are what the image processor makes of the batch; odd sizes are refused."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, CLIPImageProcessorPil

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.pixels import PixelSource
from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.models.embeddings import embed_corpus
from cprd_pipeline.models.preprocessing import Pixels, stacked
from tests.models.tiny_families import blip, clip, naflex, siglip2
from tests.tiny_encoders import simple_corpus, write_corpus

CPU = torch.device("cpu")
UNEQUAL = CLIPImageProcessorPil(size={"shortest_edge": 24}, do_center_crop=False)


def pictures() -> list[Image.Image]:
    draws = np.random.default_rng(0)
    shapes = [(40, 30), (30, 40), (64, 64), (20, 60)]
    return [Image.fromarray(draws.integers(0, 256, (height, width, 3), dtype=np.uint8)) for height, width in shapes]


@pytest.mark.parametrize("make", [clip, siglip2, naflex, blip])
def test_one_by_one_and_pickled_is_what_one_call_makes(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """To the bit, under every name that the image processor's own call gives."""
    folder = make(tmp_path / "model")
    encoder = DualEncoder.load(str(folder), CPU, torch.float32)
    assert encoder.preprocess.modules == (type(encoder.image_processor).__module__,)
    preprocess = pickle.loads(pickle.dumps(encoder.preprocess))
    made = [preprocess(picture) for picture in pictures()]
    wanted = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=pictures(), return_tensors="pt")
    found: dict[str, Any] = {"pixel_values": stacked(made)} if isinstance(made[0], torch.Tensor) else {}
    found |= {name: torch.stack([one[name] for one in made]) for name in (made[0] if not found else ())}
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
    with torch.no_grad():
        assert torch.equal(encoder.embed_prepared(made), encoder.embed_pictures(pictures()))


@pytest.mark.parametrize("make", [clip, naflex])
def test_vectors_do_not_depend_on_who_preprocesses(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two decoding processes or none: the same bytes."""
    folder, corpus = make(tmp_path / "model"), Corpus(simple_corpus(tmp_path / "corpus", 9))
    rows: Any = (np.arange(9), np.arange(2))
    found = []
    for workers in (0, 2):
        monkeypatch.setenv("CPRD_CACHE", str(tmp_path / f"cache{workers}"))
        options: dict[str, Any] = {"device": CPU, "dtype": torch.float32, "batch_size": 4, "workers": workers}
        found.append(embed_corpus(str(folder), corpus, *rows, **options).images)
    assert np.array_equal(*found)


MISMATCH = r"image processor makes one picture 24 x 32 and another 32 x 24; expected pictures of one size; set height and width"


def test_pictures_of_several_sizes_are_no_batch() -> None:
    """Both sizes are named, and what to set."""
    with pytest.raises(ModelError, match=MISMATCH):
        stacked([Pixels(UNEQUAL)(picture) for picture in (pictures()[1], pictures()[0])])


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_pictures_of_several_sizes_do_not_train(tmp_path: Path, cache_gb: float) -> None:
    """Kept in memory or not."""
    files = []
    for picture in (pictures()[1], pictures()[0]):
        picture.save(tmp_path / "picture.png")
        files.append((tmp_path / "picture.png").read_bytes())
    images = [(f"i{n}", file, "train") for n, file in enumerate(files)]
    corpus = Corpus(write_corpus(tmp_path / "corpus", images, [("c0", "a", "train")], [("i0", "c0")]))
    source = PixelSource(ImageReader(corpus, 0, Pixels(UNEQUAL)), cache_gb)

    def serve() -> None:
        source.prepare(corpus, np.arange(2))
        list(source.batches([np.arange(2)]))

    with pytest.raises(ModelError, match=MISMATCH):
        serve()
