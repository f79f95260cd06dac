"""The demo's teacher: one score per pair, whatever the company, whether through the adapter or the plain model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.cross_encoder import CrossEncoder
from cprd_pipeline.models.dual_encoder import load_encoder
from cprd_pipeline.models.scene_cross_encoder import SceneCrossEncoder
from cprd_pipeline.models.scene_teacher import SceneTeacher, build_scene_teacher

WORDS = "red green blue small large circle box ring above and".split()
CAPTIONS = ["red circle", "small green box above large blue ring and red ring", "ring", "blue box and red ring"]
CPU = torch.device("cpu")


def _teacher(dtype: torch.dtype) -> SceneTeacher:
    return build_scene_teacher(WORDS, 7, CPU, dtype)


def _pictures(count: int, seed: int = 0) -> list[Image.Image]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 48, 48, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in pixels]


FLOAT32, FLOAT64 = _teacher(torch.float32), _teacher(torch.float64)


@pytest.fixture(autouse=True)
def _no_gradients():
    """The adapter encodes in inference mode, so what its output meets must be in it too."""
    with torch.inference_mode():
        yield


@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=0, max_size=23).map(" ".join), min_size=1, max_size=9))
@settings(max_examples=25, deadline=None)
def test_score_does_not_depend_on_company(captions: list[str]):
    """Alone, in any batch, and with any padding a pair has the same score, within 1e-5 in float32."""
    image = FLOAT32.encode_images(_pictures(1))[0]
    together = FLOAT32.score(image, FLOAT32.encode_texts(captions))
    alone = torch.cat([FLOAT32.score(image, FLOAT32.encode_texts([caption])) for caption in captions])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_logits_do_not_depend_on_company_in_float64():
    """Without rounding noise the same holds within 1e-12, for images encoded in a batch too."""
    pictures = _pictures(3)
    batch, single = FLOAT64.encode_images(pictures)[1], FLOAT64.encode_images(pictures[1:2])[0]
    torch.testing.assert_close(batch, single, rtol=0, atol=1e-12)
    texts = FLOAT64.encode_texts(CAPTIONS)
    padded = torch.nn.utils.rnn.pad_sequence([text.states for text in texts], batch_first=True, padding_value=9.0)
    mask = torch.arange(padded.shape[1]) < torch.tensor([[len(text.states)] for text in texts])
    together = FLOAT64.model.match(padded, mask, batch[None], torch.zeros(4, dtype=torch.long))
    for row, caption in enumerate(CAPTIONS):
        states = FLOAT64.encode_texts([caption])[0].states[None]
        whole = torch.ones(states.shape[:2], dtype=torch.bool)
        alone = FLOAT64.model.match(states, whole, single[None], torch.zeros(1, dtype=torch.long))
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-12)
    unmasked = FLOAT64.model.match(padded, torch.ones_like(mask), batch[None], torch.zeros(4, dtype=torch.long))
    assert (unmasked[0] - together[0]).abs() > 1e-3


def test_adapter_equals_the_plain_forward_call():
    """Encoding each side once gives what the model gives for whole pairs; the wrong image gives something else."""
    pictures = _pictures(4)
    tokens = FLOAT64.tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    pixels = FLOAT64.pixels(pictures).double()
    plain = FLOAT64.model(**tokens, pixel_values=pixels)
    texts, images = FLOAT64.encode_texts(CAPTIONS), FLOAT64.encode_images(pictures)
    diagonal = torch.cat([FLOAT64.score(image, [text]) for image, text in zip(images, texts, strict=True)])
    torch.testing.assert_close(diagonal, plain.detach().float(), rtol=0, atol=1e-6)
    mirrored = FLOAT64.model(**tokens, pixel_values=pixels.flip(3))
    assert (mirrored - plain).abs().max() > 1e-3


def test_match_takes_each_pair_from_its_image_row():
    """Pairs over few distinct images equal pairs over repeated images."""
    images = torch.stack(FLOAT64.encode_images(_pictures(2)))
    states = FLOAT64.encode_texts(["red circle"])[0].states.expand(3, -1, -1)
    mask, rows = torch.ones(3, 3, dtype=torch.bool), torch.tensor([1, 0, 1])
    shared = FLOAT64.model.match(states, mask, images, rows)
    repeated = FLOAT64.model.match(states, mask, images[rows], torch.arange(3))
    torch.testing.assert_close(shared, repeated, rtol=0, atol=1e-12)
    assert shared[0] == pytest.approx(shared[2].item(), abs=1e-12)
    assert abs(shared[0] - shared[1]) > 1e-4


def test_token_logits_equal_a_slow_loop():
    """Twice the scale times the mean, over a caption's words, of the best cosine with an image token."""
    model, matcher = FLOAT64.model, FLOAT64.model.matcher
    images = torch.stack(FLOAT64.encode_images(_pictures(2)))
    texts = [text.states for text in FLOAT64.encode_texts(CAPTIONS)]
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    mask = torch.arange(padded.shape[1]) < torch.tensor([[len(text)] for text in texts])
    found = matcher.logits(padded, mask, images)
    for i in range(2):
        for c, text in enumerate(texts):
            best = [
                max(torch.cosine_similarity(matcher.text(word), matcher.image(part), dim=0).item() for part in images[i])
                for word in text
            ]
            assert found[i, c].item() == pytest.approx(2 * 10.0 * sum(best) / len(best), rel=1e-5)
    assert model.dual_logits(padded, images).shape == (2, 4)


def test_folder_loads_with_the_same_scores(tmp_path: Path):
    """Save and load, or AutoModel on the folder, keep every weight."""
    FLOAT32.save(tmp_path)
    loaded = SceneTeacher.load(tmp_path, CPU, torch.float32)
    picture = _pictures(1)
    scores = [t.score(t.encode_images(picture)[0], t.encode_texts(CAPTIONS)) for t in (FLOAT32, loaded)]
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=1e-6)
    plain = AutoModel.from_pretrained(tmp_path)
    assert isinstance(plain, SceneCrossEncoder)
    assert all(torch.equal(plain.state_dict()[name], tensor) for name, tensor in FLOAT32.model.state_dict().items())


def test_its_dual_branch_can_mine(tmp_path: Path):
    """The folder as an encoder gives the vectors whose scaled cosines are the dual branch's logits."""
    FLOAT32.save(tmp_path)
    encoder = load_encoder(str(tmp_path), CPU, torch.float32)
    pictures = _pictures(3)
    similarities = encoder.embed_pictures(pictures) @ encoder.embed_captions(CAPTIONS).T
    tokens = encoder.tokens(CAPTIONS)
    model = FLOAT32.model
    text = model.text_tower(tokens["input_ids"], tokens["attention_mask"].bool())
    expected = model.dual_logits(text, model.image_tower(FLOAT32.pixels(pictures)))
    torch.testing.assert_close(similarities * model.logit_scale.exp(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("part", ["model.safetensors", "tokenizer.json", "preprocessor_config.json", "config.json"])
def test_folder_without_a_part_is_refused(part: str, tmp_path: Path):
    """No part is replaced by random weights, an empty vocabulary or another image size."""
    FLOAT32.save(tmp_path)
    (tmp_path / part).unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded.*train-teacher"):
        SceneTeacher.load(tmp_path, CPU, torch.float32)


def test_folder_that_lacks_a_weight_is_refused(tmp_path: Path):
    """A missing tensor is named; transformers alone would draw it at random."""
    FLOAT32.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["head.2.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing \(first: head\.2\.weight\)"):
        SceneTeacher.load(tmp_path, CPU, torch.float32)


def test_long_captions_are_cut_and_counted():
    """A caption over the limit scores as its beginning, and text_tokens tells its full length."""
    long = " ".join(WORDS * 4)
    cut = " ".join((WORDS * 4)[: FLOAT32.max_text_tokens - 1])
    texts = FLOAT32.encode_texts([long, cut])
    assert [FLOAT32.text_tokens(text) for text in texts] == [41, 24]
    scores = FLOAT32.score(FLOAT32.encode_images(_pictures(1))[0], texts)
    assert scores[0].item() == pytest.approx(scores[1].item(), abs=1e-6)


def test_low_precision_keeps_a_wide_head():
    """In bfloat16 the scores come out as float32 with more distinct values than bfloat16 has between them."""
    teacher = _teacher(torch.bfloat16)
    assert teacher.model.head_dtype == torch.float32
    captions = [f"{a} {b}" for a in WORDS for b in WORDS]
    scores = teacher.score(teacher.encode_images(_pictures(1))[0], teacher.encode_texts(captions))
    exact = FLOAT32.score(FLOAT32.encode_images(_pictures(1))[0], FLOAT32.encode_texts(captions))
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())
    assert (scores - exact).abs().max() < 0.05


def test_it_is_a_cross_encoder_that_scores_both_directions_alike():
    """The adapter is the interface's, float32, one logit per caption, in evaluation mode."""
    assert isinstance(FLOAT32, CrossEncoder)
    assert FLOAT32.roles == "both"
    assert not FLOAT32.model.training
    scores = FLOAT32.score(FLOAT32.encode_images(_pictures(1))[0], FLOAT32.encode_texts(CAPTIONS))
    assert scores.shape == (4,)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
