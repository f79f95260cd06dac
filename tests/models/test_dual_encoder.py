"""Dual encoders of each family: what they compute, what they refuse."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, BertConfig, BertModel

from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.dual_encoder import DualEncoder, encoder_fingerprint
from cprd_pipeline.models.scene_student import build_scene_student
from tests.tiny_encoders import random_captions, random_image, tiny_clip, tiny_siglip, tiny_two_towers

CPU = torch.device("cpu")
FAMILIES: dict[str, Callable[[Path], Path]] = {"clip": tiny_clip, "siglip": tiny_siglip, "two_towers": tiny_two_towers}
CAPTIONS = ["a", "b c d e f g", *random_captions(6, seed=3)]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model folder of each family."""
    return FAMILIES[request.param](tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A CLIP folder that a test may spoil."""
    return tiny_clip(tmp_path / "clip")


def load(folder: Path, dtype: torch.dtype = torch.float32) -> DualEncoder:
    """The folder's encoder on the CPU."""
    return DualEncoder.load(str(folder), CPU, dtype)


def pictures(count: int) -> list[Image.Image]:
    """Random pictures as the corpus decoder gives them."""
    return [Image.open(io.BytesIO(random_image(seed))).convert("RGB") for seed in range(count)]


def test_embeddings_are_the_plain_transformers_ones(folder: Path) -> None:
    """Cosines equal those that the family's own forward gives, as its documentation calls it."""
    encoder = load(folder)
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    padding = {"padding": "max_length", "max_length": 16} if "Siglip" in type(model).__name__ else {"padding": True}
    inputs = dict(tokenizer(CAPTIONS, return_tensors="pt", **padding))
    if "Siglip" in type(model).__name__:
        del inputs["attention_mask"]
    pixel_values = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=pictures(3), return_tensors="pt")[
        "pixel_values"
    ]
    with torch.no_grad():
        plain = model(pixel_values=pixel_values, **inputs)
        images = encoder.embed_images(encoder.pixels(pictures(3)))
        texts = encoder.embed_texts(**encoder.tokens(CAPTIONS))
    torch.testing.assert_close(images, plain.image_embeds, atol=1e-6, rtol=0)
    torch.testing.assert_close(texts, plain.text_embeds, atol=1e-6, rtol=0)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(3), atol=1e-6, rtol=0)
    assert (images @ images.T - torch.eye(3)).abs().max() > 0.01
    assert encoder.logit_scale is encoder.model.logit_scale


def test_vectors_do_not_depend_on_company(folder: Path) -> None:
    """A caption alone and beside a longer one, a picture alone and among others: the same vector."""
    encoder = load(folder)
    with torch.no_grad():
        together = encoder.embed_texts(**encoder.tokens(CAPTIONS))
        alone = torch.cat([encoder.embed_texts(**encoder.tokens([caption])) for caption in CAPTIONS])
        batch = encoder.embed_images(encoder.pixels(pictures(4)))
        single = torch.cat([encoder.embed_images(encoder.pixels([picture])) for picture in pictures(4)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(batch, single, atol=1e-6, rtol=0)


def test_gradients_reach_both_towers(folder: Path) -> None:
    """Training can go through `embed_images` and `embed_texts`; loading leaves the model in evaluation mode."""
    encoder = load(folder)
    assert not encoder.model.training
    similarities = encoder.embed_images(encoder.pixels(pictures(2))) @ encoder.embed_texts(**encoder.tokens(["a b", "c"])).T
    (similarities[0, 0] * encoder.logit_scale.exp().squeeze()).backward()
    moved = {name for name, parameter in encoder.model.named_parameters() if parameter.grad is not None}
    assert any(name.startswith("text_model") for name in moved)
    assert any(name.startswith("vision_model") for name in moved)
    assert "logit_scale" in moved


def test_saved_folders_load_again(folder: Path, tmp_path: Path) -> None:
    """A saved encoder computes the same, has the same fingerprint, and does not remember what it embedded last."""
    encoder = load(folder)
    encoder.save(tmp_path / "before")
    tokens = encoder.tokens(CAPTIONS)
    encoder.token_counts(["a"])
    encoder.save(tmp_path / "after")
    assert {p.name: p.read_bytes() for p in (tmp_path / "before").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "after").iterdir()
    }
    again = load(tmp_path / "after")
    assert again.fingerprint == encoder.fingerprint
    with torch.no_grad():
        assert torch.equal(again.embed_texts(**again.tokens(CAPTIONS)), encoder.embed_texts(**tokens))


def test_the_scene_student_is_a_dual_encoder(tmp_path: Path) -> None:
    """The demo's own model is saved and loaded as any other."""
    model, tokenizer, image_processor = build_scene_student(0)
    encoder = DualEncoder(model.eval(), tokenizer, image_processor, CPU, torch.float32)
    encoder.save(tmp_path / "student")
    again = load(tmp_path / "student")
    captions = ["a red circle", "a small blue square left of a star"]
    with torch.no_grad():
        assert torch.equal(encoder.embed_texts(**encoder.tokens(captions)), again.embed_texts(**again.tokens(captions)))
        pixels = encoder.pixels(pictures(2))
        assert torch.equal(encoder.embed_images(pixels), again.embed_images(again.pixels(pictures(2))))


def test_long_captions_are_cut(folder: Path) -> None:
    """At most the model's own maximum; counts are those after cutting."""
    encoder = load(folder)
    captions = ["a " * 50, "b c"]
    assert encoder.max_text_tokens == 16
    assert encoder.tokens(captions)["input_ids"].shape == (2, 16)
    assert encoder.token_counts(captions).tolist() == [16, 4]


def test_low_precision_still_gives_unit_vectors(clip: Path) -> None:
    """bfloat16 weights, vectors of length one in float32; float64 stays float64."""
    low = load(clip, torch.bfloat16)
    high = load(clip, torch.float64)
    with torch.no_grad():
        rough, fine = low.embed_images(low.pixels(pictures(2))), high.embed_images(high.pixels(pictures(2)))
    assert (rough.dtype, fine.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(rough.norm(dim=1), torch.ones(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(rough.double(), fine, atol=0.05, rtol=0)


def test_the_fingerprint_names_weights_and_dtype_not_places(clip: Path, tmp_path: Path) -> None:
    """A copy elsewhere is the same encoder; another number type, weight or preprocessing is another one."""
    shutil.copytree(clip, tmp_path / "copy")
    known = encoder_fingerprint(str(clip), torch.float32)
    assert encoder_fingerprint(str(tmp_path / "copy"), torch.float32) == known == load(clip).fingerprint
    assert encoder_fingerprint(str(clip), torch.bfloat16) != known
    assert encoder_fingerprint(str(tiny_clip(tmp_path / "other", seed=1)), torch.float32) != known
    settings = json.loads((clip / "preprocessor_config.json").read_text())
    (clip / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.0, 0.0, 0.0]}))
    assert encoder_fingerprint(str(clip), torch.float32) != known


@pytest.mark.parametrize(
    ("file", "message"), [("preprocessor_config.json", "no image processor in it"), ("tokenizer.json", "no tokenizer in it")]
)
def test_a_part_that_is_missing_is_named(clip: Path, file: str, message: str) -> None:
    """No default tokenizer or image processor takes the place of a lost one."""
    (clip / file).unlink()
    with pytest.raises(ModelError, match=message):
        load(clip)


def test_a_text_model_is_no_dual_encoder(clip: Path) -> None:
    """One tower is not enough, and the message says what is lacking."""
    for name in ("config.json", "model.safetensors"):
        (clip / name).unlink()
    config = BertConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=80)
    BertModel(config).save_pretrained(clip)
    with pytest.raises(ModelError, match="BertModel is not a dual encoder: it has no get_image_features, get_text_features"):
        load(clip)


def test_missing_weights_are_not_made_up(clip: Path) -> None:
    """The library would fill them with random numbers."""
    weights = load_file(clip / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, clip / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing \(first: text_projection.weight\)"):
        load(clip)


def test_unknown_model_types_are_refused(clip: Path) -> None:
    """A class that transformers does not ship is not fetched and run."""
    config = json.loads((clip / "config.json").read_text())
    (clip / "config.json").write_text(json.dumps({**config, "model_type": "nobody_knows"}))
    with pytest.raises(ModelError, match=r"cannot be loaded .*nobody_knows"):
        load(clip)


def test_a_tokenizer_without_padding_is_refused(clip: Path) -> None:
    """Captions of different lengths cannot share a batch without a padding token."""
    encoder = load(clip)
    encoder.tokenizer.pad_token = None
    with pytest.raises(ModelError, match="no padding token"):
        DualEncoder(encoder.model, encoder.tokenizer, encoder.image_processor, CPU, torch.float32)


def test_a_caption_without_limit_is_refused(clip: Path) -> None:
    """Neither the tokenizer nor the position embeddings say how long a caption may be."""
    encoder = load(clip)
    encoder.tokenizer.model_max_length = 10**30
    encoder.model.config.text_config.max_position_embeddings = 10**30
    with pytest.raises(ModelError, match="its longest caption is not known; expected model_max_length"):
        DualEncoder(encoder.model, encoder.tokenizer, encoder.image_processor, CPU, torch.float32)


def test_features_that_are_no_vectors_are_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that gives one vector a token is no dual encoder; the shape is named."""
    encoder = load(clip)
    monkeypatch.setattr(encoder.model, "get_text_features", lambda **inputs: torch.zeros(1, 3, 24))
    with pytest.raises(ModelError, match=r"CLIPModel gives features of shape \(1, 3, 24\); expected one pooled vector"):
        encoder.embed_captions(["a"])


def test_only_pillow_makes_pixels(clip: Path) -> None:
    """An image processor of another backend would show other pixels on another machine."""
    encoder = load(clip)

    class Torchvision:
        backend = "torchvision"
        model_input_names = ("pixel_values",)

    with pytest.raises(ModelError, match="Torchvision does not work with Pillow"):
        DualEncoder(encoder.model, encoder.tokenizer, Torchvision(), CPU, torch.float32)

    class Masks:
        backend = "pil"
        model_input_names = ("pixel_values", "pixel_mask")

    with pytest.raises(ModelError, match="Masks gives pixel_values, pixel_mask; expected pixel_values of one size"):
        DualEncoder(encoder.model, encoder.tokenizer, Masks(), CPU, torch.float32)
    pixels = encoder.pixels(pictures(1)).numpy()
    assert pixels.dtype == np.float32
