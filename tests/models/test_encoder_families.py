"""Each family of dual encoders against what transformers itself computes, as its documentation calls it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, BlipForImageTextRetrieval

from cprd_pipeline.errors import MissingDependencyError, ModelError
from cprd_pipeline.models.dual_encoder import DualEncoder, encoder_fingerprint
from cprd_pipeline.models.students import initial_student
from tests.models.tiny_families import FAMILIES, LONGEST, blip, naflex
from tests.tiny_encoders import random_captions, tiny_siglip

CPU = torch.device("cpu")
CAPTIONS = ["a", "b c d e f g", "A b", *random_captions(5, seed=3)]
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}
UNTRAINABLE = ("blip", "naflex")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random model folder of each family."""
    return {name: make(tmp_path_factory.mktemp("models") / name) for name, make in FAMILIES.items()}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Name of a family."""
    name: str = request.param
    return name


@pytest.fixture
def folder(folders: dict[str, Path], family: str) -> Path:
    """The family's folder."""
    return folders[family]


def load(folder: Path, dtype: torch.dtype = torch.float32) -> DualEncoder:
    """The folder's encoder on the CPU."""
    return DualEncoder.load(str(folder), CPU, dtype)


def pictures(count: int) -> list[Image.Image]:
    """Noise of several shapes: wide, high, square."""
    rng = np.random.default_rng(0)
    sizes = [(40, 36), (36, 70), (20, 20), (90, 30)]
    return [Image.fromarray(rng.integers(0, 256, (*sizes[row % 4][::-1], 3), dtype=np.uint8)) for row in range(count)]


def plain_features(folder: Path, dtype: torch.dtype) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """The model, and its own image and text features, normalised: plain transformers, none of our code."""
    config = json.loads((folder / "config.json").read_text())
    is_blip = config["model_type"] == "blip"
    model = (BlipForImageTextRetrieval if is_blip else AutoModel).from_pretrained(folder, dtype=dtype).eval()
    words = AutoTokenizer.from_pretrained(folder)
    padded = "siglip" in config["model_type"]
    padding = {"padding": "max_length", "max_length": LONGEST} if padded else {"padding": True, "max_length": LONGEST}
    text = dict(words(CAPTIONS, truncation=True, return_tensors="pt", **padding))
    text.pop("token_type_ids", None)
    if padded:
        text.pop("attention_mask", None)
    image = dict(AutoImageProcessor.from_pretrained(folder, backend="pil")(images=pictures(4), return_tensors="pt"))
    image["pixel_values"] = image["pixel_values"].to(dtype)
    with torch.no_grad():
        if is_blip:
            cosines = model(input_ids=text["input_ids"], attention_mask=text["attention_mask"], use_itm_head=False, **image)
            return model, cosines.itm_score, torch.empty(0)
        features = model.get_image_features(**image).pooler_output, model.get_text_features(**text).pooler_output
    return model, *(functional.normalize(feature, dim=-1) for feature in features)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_vectors_are_those_of_transformers(family: str, folder: Path, dtype: torch.dtype) -> None:
    """Equal to the normalised features; of BLIP, cosines equal to its own call without the matching head."""
    encoder = load(folder, dtype)
    model, first, second = plain_features(folder, dtype)
    with torch.no_grad():
        images, texts = encoder.embed_pictures(pictures(4)), encoder.embed_captions(CAPTIONS)
    assert images.dtype == texts.dtype == dtype
    if family == "blip":
        torch.testing.assert_close(images @ texts.T, first, atol=TOLERANCE[dtype], rtol=0)
    else:
        torch.testing.assert_close(images, first, atol=TOLERANCE[dtype], rtol=0)
        torch.testing.assert_close(texts, second, atol=TOLERANCE[dtype], rtol=0)
    # Nothing above would show a tower that sees nothing.
    for vectors in (images, texts[:2]):
        cosines = vectors @ vectors.T
        assert cosines[~torch.eye(len(cosines), dtype=torch.bool)].max() < 0.999
    assert type(encoder.model) is type(model)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_vectors_do_not_depend_on_company(folders: dict[str, Path], data: st.DataObject) -> None:
    """Whatever shares the batch, in whatever order: the same vector, up to rounding."""
    encoder = load(folders[data.draw(st.sampled_from(sorted(folders)))], torch.float64)
    chosen = data.draw(st.lists(st.integers(0, len(CAPTIONS) - 1), min_size=1, max_size=6))
    seen = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    with torch.no_grad():
        together = encoder.embed_captions([CAPTIONS[row] for row in chosen])
        alone = torch.cat([encoder.embed_captions([CAPTIONS[row]]) for row in chosen])
        batch = encoder.embed_pictures([pictures(4)[row] for row in seen])
        single = torch.cat([encoder.embed_pictures([pictures(4)[row]]) for row in seen])
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=0)
    torch.testing.assert_close(batch, single, atol=1e-12, rtol=0)


def test_long_captions_are_cut_at_the_last_position(folder: Path) -> None:
    """Every family reads 16 tokens, those too whose position embeddings have rows that no token uses."""
    encoder = load(folder)
    assert encoder.max_text_tokens == LONGEST
    assert encoder.tokens(["a " * 50])["input_ids"].shape == (1, LONGEST)
    with torch.no_grad():
        cut, cut_elsewhere, whole = encoder.embed_captions(["a b " * 25, "a b " * 9, "a b"])
    torch.testing.assert_close(cut, cut_elsewhere, atol=1e-6, rtol=0)
    assert (cut - whole).abs().max() > 1e-3


def test_siglip_reads_the_padding(folders: dict[str, Path]) -> None:
    """The control: padded to the longest, or masked, a caption of SigLIP would have another vector."""
    encoder = load(folders["siglip2"])
    assert "attention_mask" not in encoder.tokenizer(CAPTIONS)
    with torch.no_grad():
        right = encoder.embed_captions(["a b"])
        tokens = encoder.tokenizer(["a b"], return_tensors="pt")["input_ids"]
        short = encoder.embed_texts(tokens, torch.ones_like(tokens))
        padded = encoder.tokens(["a b"])["input_ids"]
        masked = encoder.embed_texts(padded, (padded != 0).long())
    assert (right - short).abs().max() > 1e-2
    assert (right - masked).abs().max() > 1e-2


def test_blip_leaves_its_cross_attention_out(folders: dict[str, Path]) -> None:
    """The control: the vector of a caption is not what the text encoder makes of it beside a picture."""
    encoder = load(folders["blip"])
    tokens = encoder.tokens(["a b"])
    with torch.no_grad():
        right = encoder.embed_texts(**tokens)
        seen = encoder.model.vision_model(encoder.pixels(pictures(1))).last_hidden_state
        states = encoder.model.text_encoder(**tokens, encoder_hidden_states=seen).last_hidden_state
        beside = functional.normalize(encoder.model.text_proj(states[:, 0]), dim=-1)
    assert (right - beside).abs().max() > 1e-2


@pytest.mark.parametrize("change", ["weight", "picture", "words"])
def test_the_fingerprint_changes_with_every_part(family: str, folder: Path, tmp_path: Path, change: str) -> None:
    """One changed weight, image processor or tokenizer is another encoder; a copy elsewhere is the same."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    known = encoder_fingerprint(str(folder), torch.float32)
    assert encoder_fingerprint(str(copy), torch.float32) == known
    if change == "weight":
        weights = load_file(copy / "model.safetensors")
        next(iter(weights.values())).view(-1)[0] += 1e-3
        save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    else:
        name, key = ("preprocessor_config.json", "image_mean") if change == "picture" else ("tokenizer.json", "normalizer")
        content = json.loads((copy / name).read_text())
        content[key] = [0.1, 0.2, 0.3] if change == "picture" else {"type": "NFC"}
        (copy / name).write_text(json.dumps(content))
    assert encoder_fingerprint(str(copy), torch.float32) != known


@pytest.mark.parametrize("name", ["clip", "naflex", "blip"])
def test_low_precision_still_gives_unit_vectors(folders: dict[str, Path], name: str) -> None:
    """bfloat16 weights: vectors of length one in float32, near those of float32."""
    folder = folders[name]
    rough, fine = load(folder, torch.bfloat16), load(folder)
    with torch.no_grad():
        for low, high in (
            (rough.embed_pictures(pictures(4)), fine.embed_pictures(pictures(4))),
            (rough.embed_captions(CAPTIONS), fine.embed_captions(CAPTIONS)),
        ):
            assert low.dtype == torch.float32
            torch.testing.assert_close(low.norm(dim=1), torch.ones(len(low)), atol=1e-6, rtol=0)
            assert (low * high).sum(dim=1).min() > 0.99


def test_what_can_be_trained_is_trained_and_saved(family: str, folder: Path, tmp_path: Path) -> None:
    """A step through both towers and the temperature, then a folder that loads as the encoder that it was; or a clear no."""
    if family in UNTRAINABLE:
        with pytest.raises(ModelError, match=r"cannot be trained \(.*(no logit_scale|makes patches)"):
            initial_student(str(folder), 0, CPU, torch.float32)
        return
    student = initial_student(str(folder), 0, CPU, torch.float32)
    optimizer = torch.optim.SGD(student.model.parameters(), lr=0.1)
    similarities = student.embed_images(student.pixels(pictures(2))) @ student.embed_texts(**student.tokens(["a b", "c"])).T
    logits = similarities * student.logit_scale.exp()
    functional.cross_entropy(logits, torch.arange(2)).backward()
    moved = {name for name, parameter in student.model.named_parameters() if parameter.grad is not None}
    assert any(name.startswith("text_model") for name in moved)
    assert any(name.startswith("vision_model") for name in moved)
    assert "logit_scale" in moved
    optimizer.step()
    student.save(tmp_path / "student")
    again = load(tmp_path / "student")
    with torch.no_grad():
        assert torch.equal(again.embed_captions(CAPTIONS), student.embed_captions(CAPTIONS))
        assert torch.equal(again.embed_pictures(pictures(2)), student.embed_pictures(pictures(2)))
    assert again.fingerprint != encoder_fingerprint(str(folder), torch.float32)


def test_a_blip_without_its_heads_is_refused(tmp_path: Path) -> None:
    """The library would fill a lost head with random numbers."""
    folder = blip(tmp_path / "blip")
    weights = load_file(folder / "model.safetensors")
    del weights["text_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing \(first: text_proj.weight\)"):
        load(folder)


def test_naflex_follows_the_shape_of_the_picture(tmp_path: Path) -> None:
    """A wide picture and its crop to a square have other vectors."""
    encoder = load(naflex(tmp_path / "naflex"))
    wide = Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 48, 3), dtype=np.uint8))
    shapes = [encoder.image_processor(images=[picture])["spatial_shapes"] for picture in (wide, wide.resize((32, 32)))]
    assert np.asarray(shapes[0]).tolist() != np.asarray(shapes[1]).tolist()
    with torch.no_grad():
        vectors = encoder.embed_pictures([wide, wide.resize((32, 32))])
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3


def test_a_tokenizer_of_a_missing_package_is_named(tmp_path: Path) -> None:
    """SigLIP's own tokenizer needs SentencePiece; without it the message names the extra."""
    folder = tiny_siglip(tmp_path / "siglip")
    settings_file = folder / "tokenizer_config.json"
    settings_file.write_text(json.dumps({**json.loads(settings_file.read_text()), "tokenizer_class": "SiglipTokenizer"}))
    try:
        import sentencepiece  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match=r"SentencePiece.*cprd-pipeline\[encoders\]"):
            load(folder)


def test_code_in_the_folder_is_never_run(tmp_path: Path) -> None:
    """A model, a tokenizer and an image processor that name the folder's own code: the code is not even imported."""
    folder = tiny_siglip(tmp_path / "siglip")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Own: pass\n")
    for name, own in {
        "tokenizer_config.json": {"AutoTokenizer": ["own.Own", None]},
        "preprocessor_config.json": {"AutoImageProcessor": "own.Own"},
        "config.json": {"AutoConfig": "own.Own", "AutoModel": "own.Own"},
    }.items():
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, "auto_map": own}))
    with torch.no_grad():
        plain = load(tiny_siglip(tmp_path / "plain")).embed_captions(CAPTIONS)
        assert torch.equal(load(folder).embed_captions(CAPTIONS), plain)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own"}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)
    assert not (tmp_path / "ran").exists()
