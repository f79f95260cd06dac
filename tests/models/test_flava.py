"""FLAVA's matching head from cached towers, against the plain call of transformers as its oracle."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import FlavaConfig, FlavaForPreTraining, FlavaImageProcessorPil

from cprd_pipeline.errors import ModelError, SettingsError
from cprd_pipeline.models.cross_encoder import CrossEncoder
from cprd_pipeline.models.flava import FlavaTeacher
from cprd_pipeline.models.flava_folder import FlavaMatcher, FlavaOptions
from cprd_pipeline.models.single_stream import PAIRS_AT_ONCE
from tests.pipeline.tiny_models import word_tokenizer

WORDS = "a dog cat man runs beside the red tree house small".split()
CAPTIONS = [
    "a dog",
    "the red house",
    "a small cat runs beside the tree",
    "man runs",
    "a man beside a red tree beside a small red house",
    "the dog runs beside the cat",
    "dog",
]
CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-12}


def random_model(seed: int, layers: int = 3, **changes: object) -> FlavaForPreTraining:
    """Weights of spread 0.05, biases, norms, [CLS] and positions that are not their neutral values; a small codebook."""
    torch.manual_seed(seed)
    small = {"hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 6, "initializer_range": 0.05}
    config = FlavaConfig(
        image_config={**small, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8, "vocab_size": 16},
        text_config={**small, "num_hidden_layers": 2, "vocab_size": 4 + len(WORDS), "max_position_embeddings": 24},
        multimodal_config={**small, "num_hidden_layers": layers, **changes},
        image_codebook_config={"hidden_size": 8, "vocab_size": 16},
        hidden_size=48,
        projection_dim=16,
        initializer_range=0.05,
    )
    model = FlavaForPreTraining(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim and (parameter.ndim == 1 or len(parameter) == 1):
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def processor(size: int = 32, **changes: object) -> FlavaImageProcessorPil:
    """Pictures of `size` x `size`."""
    edges = {"height": size, "width": size}
    return FlavaImageProcessorPil(**{"size": edges, "crop_size": edges, **changes})


def teacher(seed: int = 0, dtype: torch.dtype = torch.float32, layers: int = 3, **options: object) -> FlavaTeacher:
    """The adapter around `random_model(seed)`."""
    model = random_model(seed, layers)
    return FlavaTeacher(model, word_tokenizer(WORDS, 24), processor(), CPU, dtype, FlavaOptions(**options))


def seen(model: FlavaTeacher, images: list[Image.Image]) -> list[torch.Tensor]:
    """Pictures as the scorer loop gives them to the teacher."""
    return model.encode_images([model.preprocess(image) for image in images])


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Noise of 40 x 36 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 40, 36, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in pixels]


def plain_logits(
    model: FlavaForPreTraining, image: Image.Image, captions: Sequence[str], *, masked: bool = True, padding: object = True
) -> torch.Tensor:
    """One ordinary, padded call for all captions."""
    dtype = next(model.parameters()).dtype
    pixels = processor()(images=[image], return_tensors="pt")["pixel_values"].to(dtype)
    tokens = word_tokenizer(WORDS, 24)(list(captions), padding=padding, return_tensors="pt")
    mask = tokens["attention_mask"] if masked else torch.ones_like(tokens["attention_mask"])
    ids = tokens["input_ids"]
    with torch.inference_mode():
        repeated = pixels.expand(len(captions), -1, -1, -1)
        # The head reads what is masked in training; here that is the caption itself.
        output = model(input_ids=ids, input_ids_masked=ids, pixel_values=repeated, attention_mask=mask, return_loss=False)
    return output.itm_logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_logits_equal_the_plain_call(seed: int, dtype: torch.dtype) -> None:
    """Both logits of every pair within 5e-6 (float32) and 1e-12 (float64), the captions in the same order of score."""
    cached, plain = teacher(seed, dtype), random_model(seed).to(dtype)
    for image, encoded in zip(pictures(3), seen(cached, pictures(3)), strict=True):
        padded = plain_logits(plain, image, CAPTIONS)
        single = torch.cat([plain_logits(plain, image, [caption]) for caption in CAPTIONS])
        found = cached.logits([(encoded, cached.encode_texts(CAPTIONS))])
        assert found.dtype == dtype
        torch.testing.assert_close(found, single, rtol=0, atol=TOLERANCE[dtype])
        torch.testing.assert_close(found, padded, rtol=0, atol=TOLERANCE[dtype])
        margin = single[:, 1] - single[:, 0]
        assert margin.std() > 1e-3
        assert torch.equal((found[:, 1] - found[:, 0]).argsort(), margin.argsort())


@pytest.mark.parametrize("layers", [1, 2])
def test_few_layers_work(layers: int) -> None:
    """The first layer may be the last one, or the one before it."""
    model = teacher(3, torch.float64, layers)
    image = pictures(1)[0]
    found = model.logits([(seen(model, [image])[0], model.encode_texts(CAPTIONS))])
    torch.testing.assert_close(found, plain_logits(random_model(3, layers).double(), image, CAPTIONS), rtol=0, atol=1e-12)


@pytest.mark.parametrize("changes", [{"use_cls_token": False}, {"qkv_bias": False}])
def test_other_configurations_work(changes: dict[str, object]) -> None:
    """Without a [CLS] of its own the multimodal encoder is read at the image's; projections may lack biases."""
    model = FlavaTeacher(random_model(4, **changes), word_tokenizer(WORDS, 24), processor(), CPU, torch.float64)
    image = pictures(1)[0]
    found = model.logits([(seen(model, [image])[0], model.encode_texts(CAPTIONS))])
    expected = plain_logits(random_model(4, **changes).double(), image, CAPTIONS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_what_must_differ_differs() -> None:
    """A mirrored picture, other captions, padding without a mask, turned layers: each would be noticed."""
    cached, plain = teacher(0, torch.float64), random_model(0).double()
    image = pictures(1)[0]
    found = cached.logits([(seen(cached, [image])[0], cached.encode_texts(CAPTIONS))])
    others = {
        "mirrored": plain_logits(plain, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), CAPTIONS),
        "another picture": plain_logits(plain, pictures(1, seed=9)[0], CAPTIONS),
        "no mask": plain_logits(plain, image, CAPTIONS, masked=False, padding="max_length"),
        "swapped captions": plain_logits(plain, image, CAPTIONS[::-1]),
    }
    joint = plain.flava.multimodal_model.encoder
    joint.layer = joint.layer[::-1]
    others["turned layers"] = plain_logits(plain, image, CAPTIONS)
    for name, other in others.items():
        assert (found - other).abs().max() > 1e-3, name


FLOAT32 = teacher()
IMAGES = seen(FLOAT32, pictures(4))
LISTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join), min_size=1, max_size=8)


@given(LISTS, st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_a_score_does_not_depend_on_company(captions: list[str], image: int) -> None:
    """Alone, among others, and in another order a pair has the same score, within 5e-6."""
    together = FLOAT32.score(IMAGES[image], FLOAT32.encode_texts(captions))
    alone = torch.cat([FLOAT32.score(IMAGES[image], FLOAT32.encode_texts([caption])) for caption in captions])
    turned = FLOAT32.score(IMAGES[image], FLOAT32.encode_texts(captions[::-1])).flip(0)
    torch.testing.assert_close(together, alone, rtol=0, atol=5e-6)
    torch.testing.assert_close(together, turned, rtol=0, atol=5e-6)


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.sampled_from(CAPTIONS), min_size=1, max_size=5)), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_several_images_in_one_pass(chosen: list[tuple[int, list[str]]]) -> None:
    """Groups of images, also the same one twice, give what each image gives alone, in the order of the groups."""
    texts = dict(zip(CAPTIONS, FLOAT32.encode_texts(CAPTIONS), strict=True))
    groups = [(IMAGES[image], [texts[caption] for caption in captions]) for image, captions in chosen]
    alone = torch.cat([FLOAT32.score(*group) for group in groups])
    torch.testing.assert_close(FLOAT32.score_groups(groups), alone, rtol=0, atol=5e-6)


def test_a_score_does_not_depend_on_the_slice() -> None:
    """More pairs than go through together: the same scores as in small calls, within 1e-12 in float64."""
    model = teacher(0, torch.float64)
    images, texts = seen(model, pictures(4)), model.encode_texts(CAPTIONS * 4)
    groups = [(image, texts) for image in images]
    assert len(texts) < PAIRS_AT_ONCE < len(images) * len(texts)
    alone = torch.cat([model.logits([group]) for group in groups])
    torch.testing.assert_close(model.logits(groups), alone, rtol=0, atol=1e-12)


def test_an_item_does_not_depend_on_its_batch() -> None:
    """Encoded alone or with others: the same states, within 1e-12 in float64."""
    model = teacher(0, torch.float64)
    together, alone = seen(model, pictures(4))[2], seen(model, pictures(4)[2:3])[0]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert together.shape == (1 + 1 + 16, 48)
    text, single = model.encode_texts(CAPTIONS)[2], model.encode_texts(CAPTIONS[2:3])[0]
    torch.testing.assert_close(text.states, single.states, rtol=0, atol=1e-12)
    assert text.states.shape == (9, 48)


def test_the_score_is_the_margin_in_float32() -> None:
    """Match minus no-match, or the match logit alone: one value a caption, no gradient, no softmax."""
    texts = FLOAT32.encode_texts(CAPTIONS)
    logits, scores = FLOAT32.logits([(IMAGES[0], texts)]), FLOAT32.score(IMAGES[0], texts)
    assert isinstance(FLOAT32, CrossEncoder)
    assert scores.dtype == torch.float32
    assert scores.shape == (len(CAPTIONS),)
    assert not scores.requires_grad
    assert torch.equal(scores, logits[:, 1] - logits[:, 0])
    assert torch.equal(teacher(score="match_logit").score(IMAGES[0], texts), logits[:, 1])


def test_the_sum_with_the_contrastive_head_is_refused() -> None:
    """It is published for BLIP, not for FLAVA."""
    with pytest.raises(SettingsError, match=r"teacher\.score is match_logit\+itc; expected margin or match_logit"):
        teacher(score="match_logit+itc")


def test_match_is_the_second_logit() -> None:
    """The plain model's loss, told that all pairs match, falls as the second logit rises."""
    plain, image = random_model(0), pictures(1)[0]
    tokens = word_tokenizer(WORDS, 24)(CAPTIONS[:1], return_tensors="pt")["input_ids"]
    pixels = processor()(images=[image], return_tensors="pt")["pixel_values"]
    calls = {"input_ids": tokens, "input_ids_masked": tokens, "pixel_values": pixels, "itm_labels": torch.ones(1, dtype=torch.long)}
    patches = {"mim_labels": torch.zeros(1, 16, dtype=torch.long), "bool_masked_pos": torch.ones(1, 16, dtype=torch.bool)}
    losses = []
    for bias in (0.0, 1.0):
        with torch.inference_mode():
            plain.itm_head.seq_relationship.bias[1] = bias
            losses.append(plain(**calls, **patches, return_loss=True).loss_info.itm)
    assert losses[1] < losses[0]


def test_bfloat16_keeps_head_and_score_in_float32() -> None:
    """Scores are no bfloat16 values, and near those of float32."""
    model = teacher(0, torch.bfloat16)
    image = seen(model, pictures(1))[0]
    scores = model.score(image, model.encode_texts(CAPTIONS))
    exact = FLOAT32.score(IMAGES[0], FLOAT32.encode_texts(CAPTIONS))
    assert image.dtype == torch.bfloat16
    assert model.head.seq_relationship.weight.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())
    assert 1e-6 < (scores - exact).abs().max() < 0.1


def test_long_captions_are_cut_by_the_tokenizer_and_keep_their_count() -> None:
    """Only the tokens are cut, the separator stays last, and the count of before is known."""
    model = teacher(0, torch.float64, max_text_tokens=6)
    short, long = model.encode_texts(["a dog", "a man beside a red tree beside a small red house"])
    assert (short.tokens, len(short.states)) == (4, 4)
    assert (long.tokens, len(long.states)) == (13, 6)
    assert model.text_tokens(long) > model.max_text_tokens >= model.text_tokens(short)
    image = pictures(1)[0]
    found = model.logits([(seen(model, [image])[0], [long])])
    torch.testing.assert_close(found, plain_logits(random_model(0).double(), image, ["a man beside a"]), rtol=0, atol=1e-12)


def test_a_limit_above_the_models_own_is_refused() -> None:
    """The position embeddings end somewhere."""
    with pytest.raises(SettingsError, match=r"teacher\.max_text_tokens is 25; expected at most 24"):
        teacher(max_text_tokens=25)


def test_preprocessing_travels_to_other_processes() -> None:
    """It pickles, and makes the same pixels there."""
    picture = pictures(1)[0]
    assert torch.equal(pickle.loads(pickle.dumps(FLOAT32.preprocess))(picture), FLOAT32.preprocess(picture))


def save(folder: Path, model: torch.nn.Module, **parts: object) -> Path:
    """A folder as `save_pretrained` writes it; a part that is None is left out."""
    for part in {"model": model, "tokenizer": word_tokenizer(WORDS, 24), "processor": processor(), **parts}.values():
        if part is not None:
            part.save_pretrained(folder)
    return folder


def test_a_saved_folder_loads_and_scores_alike(tmp_path: Path) -> None:
    """What transformers saved scores within 1e-6: where weights lie in memory may move the last bits."""
    loaded = FlavaTeacher.load(save(tmp_path, random_model(0)), CPU, torch.float32)
    scores = loaded.score(seen(loaded, pictures(4))[1], loaded.encode_texts(CAPTIONS))
    torch.testing.assert_close(scores, FLOAT32.score(IMAGES[1], FLOAT32.encode_texts(CAPTIONS)), rtol=0, atol=1e-6)


def test_only_what_matching_needs_is_loaded(tmp_path: Path) -> None:
    """The codebook and the heads of the masked losses stay on the disk, and transformers does not report them."""
    model = random_model(0)
    save(tmp_path, model)
    matcher, notes = FlavaMatcher.from_pretrained(tmp_path, output_loading_info=True)
    assert set(matcher.state_dict()) == {name for name in model.state_dict() if name.startswith(("flava.", "itm_head."))}
    assert not notes["unexpected_keys"]


def test_facts_need_no_weights(tmp_path: Path) -> None:
    """The maximum length resolves to what it means, so that a default spelled out is the same teacher."""
    save(tmp_path, random_model(0))
    (tmp_path / "model.safetensors").unlink()
    plain = {"score": "margin", "max_text_tokens": 24}
    assert FlavaTeacher.facts(tmp_path) == plain
    assert FlavaTeacher.facts(tmp_path, score="margin", max_text_tokens=24) == plain
    assert FlavaTeacher.facts(tmp_path, score="match_logit", max_text_tokens=9) == {"score": "match_logit", "max_text_tokens": 9}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": None}, "no tokenizer in it; expected one of tokenizer.json"),
        ({"processor": None}, "no image processor in it"),
        ({"processor": processor(48)}, "pictures of 48 x 48; expected 32 x 32"),
        ({"processor": processor(48, crop_size={"height": 40, "width": 32})}, "pictures of 40 x 32; expected 32 x 32"),
        ({"processor": processor(48, do_center_crop=False)}, "pictures of 48 x 48; expected 32 x 32"),
    ],
)
def test_a_part_that_is_missing_or_does_not_fit_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """One line instead of a silent default."""
    with pytest.raises(ModelError, match=message):
        FlavaTeacher.load(save(tmp_path, random_model(0), **change), CPU, torch.float32)


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    """A checkpoint without the matching head is refused, as is a folder without weights."""
    save(tmp_path, random_model(0).flava, config=random_model(0).config)
    with pytest.raises(ModelError, match=r"4 weights are missing \(first: itm_head.pooler.dense.bias\)"):
        FlavaTeacher.load(tmp_path, CPU, torch.float32)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        FlavaTeacher.load(tmp_path, CPU, torch.float32)
