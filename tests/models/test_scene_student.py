"""The demo's student: transformers' interface, its own first weights, and vectors that do not depend on company."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from cprd_pipeline.models.scene_layers import Attention
from cprd_pipeline.models.scene_student import build_scene_student

CAPTIONS = ["red circle", "small green box above large blue disc and tiny white ring", "thing"]


@pytest.fixture(scope="module")
def student():
    """Model, tokenizer and image processor; the model in float64."""
    model, tokenizer, image_processor = build_scene_student(3)
    return model.double().eval(), tokenizer, image_processor


def _text(model, tokenizer, captions):
    return model.get_text_features(**tokenizer(captions, padding=True, return_tensors="pt")).pooler_output


def test_seed_determines_the_weights_and_nothing_else_moves():
    """Equal seeds give equal weights, other seeds others, and the caller's random numbers go on undisturbed."""
    torch.manual_seed(0)
    undisturbed = torch.rand(3)
    torch.manual_seed(0)
    first, second, other = (build_scene_student(seed)[0].state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), undisturbed)
    assert all(torch.equal(first[name], second[name]) for name in first)
    drawn = [name for name in first if "norm" not in name and name != "logit_scale"]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_first_weights_are_ours_not_transformers():
    """Embeddings and positions begin wide and linear layers as PyTorch's; transformers would draw all with std 0.02."""
    model = build_scene_student(0)[0]
    assert model.text_tower.words.weight.std().item() == pytest.approx(0.5, rel=0.05)
    assert model.image_tower.positions.std().item() == pytest.approx(0.5, rel=0.1)
    assert model.text_tower.positions.std().item() == pytest.approx(0.3, rel=0.1)
    weight = model.visual_projection.weight
    assert weight.abs().max() <= 1 / math.sqrt(64)
    assert weight.std().item() == pytest.approx(1 / math.sqrt(3 * 64), rel=0.05)
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))


def test_folder_loads_in_a_fresh_process_with_the_same_vectors(tmp_path: Path):
    """One import registers the classes; AutoModel, AutoTokenizer and AutoImageProcessor do the rest."""
    model, tokenizer, image_processor = build_scene_student(5)
    for part in (model, tokenizer, image_processor):
        part.save_pretrained(tmp_path)
    expected = _text(model.eval(), tokenizer, CAPTIONS).detach().numpy()
    script = f"""
import cprd_pipeline.models.scene_student, numpy
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
model, tokenizer = AutoModel.from_pretrained({str(tmp_path)!r}), AutoTokenizer.from_pretrained({str(tmp_path)!r})
AutoImageProcessor.from_pretrained({str(tmp_path)!r}, backend="pil")
tokens = tokenizer({CAPTIONS!r}, padding=True, return_tensors="pt")
numpy.save({str(tmp_path / "found.npy")!r}, model.get_text_features(**tokens).pooler_output.detach().numpy())
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=120)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-6)


def test_loading_draws_no_weight_anew(tmp_path: Path):
    """Every tensor of the folder arrives; none is left as initialised."""
    model, tokenizer, image_processor = build_scene_student(5)
    for part in (model, tokenizer, image_processor):
        part.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path)(CAPTIONS)["input_ids"] == tokenizer(CAPTIONS)["input_ids"]
    assert AutoImageProcessor.from_pretrained(tmp_path, backend="pil").size == image_processor.size


def test_caption_vector_does_not_depend_on_padding_or_company(student):
    """A caption's vector is the same alone, beside longer ones, and whatever stands where the mask says padding."""
    model, tokenizer, _ = student
    together = _text(model, tokenizer, CAPTIONS)
    alone = torch.cat([_text(model, tokenizer, [caption]) for caption in CAPTIONS])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    tokens = tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    garbage = torch.where(tokens["attention_mask"].bool(), tokens["input_ids"], 5)
    masked = model.get_text_features(garbage, tokens["attention_mask"]).pooler_output
    torch.testing.assert_close(masked, alone, rtol=0, atol=1e-12)
    unmasked = model.get_text_features(garbage, torch.ones_like(garbage)).pooler_output
    assert (unmasked[0] - alone[0]).abs().max() > 1e-3


def test_padding_is_told_by_the_ids_where_no_mask_is_given(student):
    """get_text_features without attention_mask equals the call with the tokenizer's mask."""
    model, tokenizer, _ = student
    tokens = tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    found = model.get_text_features(tokens["input_ids"]).pooler_output
    torch.testing.assert_close(found, _text(model, tokenizer, CAPTIONS), rtol=0, atol=0)


def test_image_vector_does_not_depend_on_company(student):
    """An image's vector is the same alone and in a batch, and other images have others."""
    model = student[0]
    pixels = torch.rand(4, 3, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = model.get_image_features(pixels).pooler_output
    alone = torch.cat([model.get_image_features(image[None]).pooler_output for image in pixels])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_forward_is_scaled_cosines_of_all_pairs(student):
    """logits_per_image equals cosine times exp(logit_scale), pair by pair."""
    model, tokenizer, _ = student
    pixels = torch.rand(2, 3, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        output = model(**tokenizer(CAPTIONS, padding=True, return_tensors="pt"), pixel_values=pixels)
        images, captions = model.get_image_features(pixels).pooler_output, _text(model, tokenizer, CAPTIONS)
    for i in range(2):
        for c in range(3):
            cosine = torch.dot(images[i], captions[c]) / math.sqrt(images[i].square().sum() * captions[c].square().sum())
            assert output.logits_per_image[i, c].item() == pytest.approx(cosine.item() / 0.07, rel=1e-6)
    assert torch.equal(output.logits_per_text, output.logits_per_image.T)


def test_every_weight_takes_part(student):
    """A contrastive loss reaches every parameter, so that none is dead weight."""
    model, tokenizer, _ = build_scene_student(0)
    pixels = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    logits = model(**tokenizer(CAPTIONS, padding=True, return_tensors="pt"), pixel_values=pixels).logits_per_image
    torch.nn.functional.cross_entropy(logits, torch.arange(3)).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_attention_equals_a_slow_loop():
    """Softmax of scaled products over visible keys, per head; written out for one batch of two."""
    torch.manual_seed(0)
    attention = Attention(8, 2).double()
    states, seen = torch.randn(2, 3, 8, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    found = attention(states, attention.keys_values(seen), mask)
    queries, keys_values = attention.query(states), attention.key_value(seen)
    slow = torch.zeros(2, 3, 8, dtype=torch.float64)
    for b in range(2):
        for t in range(3):
            for h in range(2):
                part = slice(4 * h, 4 * h + 4)
                logits = [queries[b, t, part] @ keys_values[b, p, :8][part] / 2 for p in range(5)]
                weights = torch.stack([torch.exp(x) if mask[b, p] else x * 0 for p, x in enumerate(logits)])
                values = keys_values[b, :, 8:][:, part]
                slow[b, t, part] = weights @ values / weights.sum()
    torch.testing.assert_close(found, attention.output(slow), rtol=0, atol=1e-12)


def test_tokenizer_puts_cls_first_and_marks_what_it_does_not_know(student):
    """Ids 0, 1 and 2 are [PAD], [CLS] and [UNK]; case does not matter; captions are cut at the model's limit."""
    tokenizer = student[1]
    ids = tokenizer(["Red zebra", "red"], padding=True)["input_ids"]
    assert ids == [[1, tokenizer.vocab["red"], 2], [1, tokenizer.vocab["red"], 0]]
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["[PAD]", "[CLS]", "[UNK]"]
    assert len(tokenizer("red " * 40, truncation=True)["input_ids"]) == 24


def test_image_processor_maps_bytes_to_minus_one_to_one_and_crops_nothing(student):
    """48 px pictures keep their pixels exactly; other sizes are resized whole."""
    process = student[2]
    picture = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    pixels = np.asarray(process(Image.fromarray(picture), return_tensors="np")["pixel_values"])[0]
    np.testing.assert_allclose(pixels, picture.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)
    halves = np.zeros((60, 200, 3), dtype=np.uint8)
    halves[:, 100:] = 255
    resized = np.asarray(process(Image.fromarray(halves), return_tensors="np")["pixel_values"])[0]
    assert resized.shape == (3, 48, 48)
    assert np.allclose(resized[:, :, 0], -1)
    assert np.allclose(resized[:, :, -1], 1)
