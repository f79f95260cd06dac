"""BridgeTower's matching head in cached and packed execution, against the plain call of transformers as its oracle."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import BridgeTowerConfig, BridgeTowerForImageAndTextRetrieval, BridgeTowerImageProcessorPil

from cprd_pipeline.errors import ModelError, SettingsError
from cprd_pipeline.models.bridgetower import BridgeTowerTeacher
from cprd_pipeline.models.cross_encoder import CrossEncoder
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


def random_model(
    seed: int, *, crossing: int = 3, layers: int = 4, vision: dict[str, object] | None = None, **config: object
) -> BridgeTowerForImageAndTextRetrieval:
    """Wide spreads, and biases and norms that are not their neutral values."""
    torch.manual_seed(seed)
    text = {
        "vocab_size": 4 + len(WORDS),
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": layers,
        "num_attention_heads": 6,
        "max_position_embeddings": 25,
        "initializer_factor": 4,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    # The vision tower's heads are 64 wide.
    seeing = {"hidden_size": 128, "num_hidden_layers": layers, "image_size": 32, "patch_size": 8, **(vision or {})}
    shape = {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": crossing, "initializer_factor": 4}
    model = BridgeTowerForImageAndTextRetrieval(BridgeTowerConfig(text_config=text, vision_config=seeing, **shape, **config))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def processor(size: int = 32, **options: object) -> BridgeTowerImageProcessorPil:
    """Pictures of 32 x 32 by default; edges of multiples of 8, not 32, leave more than nothing of a long one."""
    edge = {"shortest_edge": size}
    return BridgeTowerImageProcessorPil(**{"size": edge, "crop_size": edge, "size_divisor": 8, **options})


def teacher(seed: int = 0, dtype: torch.dtype = torch.float32, max_text_tokens: int | None = None) -> BridgeTowerTeacher:
    """The adapter around `random_model(seed)`."""
    return BridgeTowerTeacher(random_model(seed), word_tokenizer(WORDS, 24), processor(), CPU, dtype, max_text_tokens)


def seen(model: BridgeTowerTeacher, images: list[Image.Image]) -> list[torch.Tensor]:
    """Pictures as the scorer loop gives them to the teacher."""
    return model.encode_images([model.preprocess(image) for image in images])


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Noise of 40 x 36 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 40, 36, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in pixels]


def plain_logits(
    model: BridgeTowerForImageAndTextRetrieval,
    image: Image.Image,
    captions: list[str],
    *,
    masked: bool = True,
    padding: object = True,
) -> torch.Tensor:
    """One ordinary, padded call for all captions."""
    dtype = next(model.parameters()).dtype
    pictured = processor()(images=[image] * len(captions), return_tensors="pt")
    tokens = word_tokenizer(WORDS, 24)(captions, padding=padding, return_tensors="pt")
    mask = tokens["attention_mask"] if masked else torch.ones_like(tokens["attention_mask"])
    with torch.inference_mode():
        pixels = pictured["pixel_values"].to(dtype)
        return model(tokens["input_ids"], mask, pixel_values=pixels, pixel_mask=pictured["pixel_mask"]).logits


def assert_equals_plain(model: BridgeTowerForImageAndTextRetrieval, dtype: torch.dtype) -> torch.Tensor:
    """Logits of the adapter around a model, after comparing them with the model's own."""
    image = pictures(1)[0]
    expected = plain_logits(model.to(dtype), image, CAPTIONS)
    packed = BridgeTowerTeacher(model, word_tokenizer(WORDS, 24), processor(), CPU, dtype)
    found = packed.logits([(seen(packed, [image])[0], packed.encode_texts(CAPTIONS))])
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[dtype])
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_logits_equal_the_plain_call(seed: int, dtype: torch.dtype) -> None:
    """Both logits of every pair within 5e-6 (float32) and 1e-12 (float64), the captions in the same order of score."""
    packed, plain = teacher(seed, dtype), random_model(seed).to(dtype)
    for image, encoded in zip(pictures(3), seen(packed, pictures(3)), strict=True):
        expected = plain_logits(plain, image, CAPTIONS)
        found = packed.logits([(encoded, packed.encode_texts(CAPTIONS))])
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[dtype])
        margin = expected[:, 1] - expected[:, 0]
        assert margin.std() > 1e-2
        assert torch.equal((found[:, 1] - found[:, 0]).argsort(), margin.argsort())


@pytest.mark.parametrize(
    "shape",
    [
        {"crossing": 1},
        {"crossing": 2},
        {"crossing": 5},
        {"layers": 5, "vision": {"num_hidden_layers": 6}},
        {"share_cross_modal_transformer_layers": False},
        {"link_tower_type": "scaled_add"},
        {"link_tower_type": "interpolate"},
    ],
)
def test_other_shapes_equal_the_plain_call(shape: dict[str, object]) -> None:
    """The first layer may be the last one; towers may be as deep as they like; bridges come in several kinds."""
    assert_equals_plain(random_model(3, **shape), torch.float64)


def test_what_must_differ_differs() -> None:
    """Another image, caption or layer, and padding without a mask give other scores: the comparison can fail."""
    packed, plain, swapped = teacher(0, torch.float64), random_model(0).double(), random_model(0).double()
    image = pictures(1)[0]
    found = packed.logits([(seen(packed, [image])[0], packed.encode_texts(CAPTIONS))])
    others = {
        "mirrored": plain_logits(plain, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), CAPTIONS),
        "another picture": plain_logits(plain, pictures(1, seed=9)[0], CAPTIONS),
        "no mask": plain_logits(plain, image, CAPTIONS, masked=False, padding="max_length"),
        "swapped captions": plain_logits(plain, image, CAPTIONS[::-1]),
    }
    for side in ("text", "image"):
        for parts in ("layers", "link_tower"):
            modules = getattr(swapped.bridgetower, f"cross_modal_{side}_{parts}")
            modules[0], modules[1] = modules[1], modules[0]
            others[f"swapped {side} {parts}"] = plain_logits(swapped, image, CAPTIONS)
            modules[0], modules[1] = modules[1], modules[0]
    for name, other in others.items():
        assert (found - other).abs().max() > 1e-2, name


def test_a_padding_token_inside_a_caption_counts_as_in_the_plain_call() -> None:
    """The model reads it, and does not count it as a position."""
    packed, plain = teacher(0, torch.float64), random_model(0).double()
    image, captions = pictures(1)[0], ["a [PAD] dog runs", "a dog [PAD] runs"]
    texts = packed.encode_texts(captions)
    assert [text.tokens for text in texts] == [6, 6]
    found = packed.logits([(seen(packed, [image])[0], texts)])
    torch.testing.assert_close(found, plain_logits(plain, image, captions), rtol=0, atol=1e-12)


FLOAT32 = teacher()
IMAGES = seen(FLOAT32, pictures(4))
captions_strategy = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join), min_size=1, max_size=6)


@given(captions_strategy, st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_a_score_does_not_depend_on_company(captions: list[str], image: int) -> None:
    """Alone, among others, and in another order a pair has the same score, within 5e-6."""
    together = FLOAT32.score(IMAGES[image], FLOAT32.encode_texts(captions))
    alone = torch.cat([FLOAT32.score(IMAGES[image], FLOAT32.encode_texts([caption])) for caption in captions])
    turned = FLOAT32.score(IMAGES[image], FLOAT32.encode_texts(captions[::-1])).flip(0)
    torch.testing.assert_close(together, alone, rtol=0, atol=5e-6)
    torch.testing.assert_close(together, turned, rtol=0, atol=5e-6)


@given(st.lists(st.tuples(st.integers(0, 3), captions_strategy), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_groups_score_as_each_alone(wanted: list[tuple[int, list[str]]]) -> None:
    """One pass over several images, the same one twice among them, gives each pair its own score, within 5e-6."""
    groups = [(IMAGES[image], FLOAT32.encode_texts(captions)) for image, captions in wanted]
    together = FLOAT32.score_groups(groups)
    torch.testing.assert_close(together, torch.cat([FLOAT32.score(*group) for group in groups]), rtol=0, atol=5e-6)


def test_a_call_of_many_pairs_is_cut_and_scores_alike() -> None:
    """42 and 6 captions of two images: more than run together, and a slice with both images."""
    model, plain = teacher(0, torch.float64), random_model(0).double()
    images, captions = pictures(2), [CAPTIONS * 6, CAPTIONS[:6]]
    expected = torch.cat([plain_logits(plain, image, texts) for image, texts in zip(images, captions, strict=True)])
    groups = list(zip(seen(model, images), [model.encode_texts(texts) for texts in captions], strict=True))
    torch.testing.assert_close(model.logits(groups), expected, rtol=0, atol=1e-12)
    swapped = list(zip(seen(model, images[::-1]), [texts for _, texts in groups], strict=True))
    assert (model.logits(swapped) - expected).abs().max() > 1e-2


def test_an_image_does_not_depend_on_its_batch() -> None:
    """Encoded alone or with others: the same states, within 1e-12 in float64."""
    model = teacher(0, torch.float64)
    together, alone = seen(model, pictures(4))[2], seen(model, pictures(4)[2:3])[0]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_preprocessing_crosses_processes() -> None:
    """It pickles, and makes what the image processor makes; a long picture becomes as large as the others."""
    preprocess = pickle.loads(pickle.dumps(FLOAT32.preprocess))
    picture = pictures(1)[0]
    assert torch.equal(preprocess(picture), processor()(images=[picture], return_tensors="pt")["pixel_values"][0])
    assert preprocess(picture.resize((90, 40))).shape == (3, 32, 32)


def test_the_score_is_the_margin_in_float32() -> None:
    """Match minus no-match, one value a caption, no gradient, no softmax."""
    texts = FLOAT32.encode_texts(CAPTIONS)
    logits, scores = FLOAT32.logits([(IMAGES[0], texts)]), FLOAT32.score(IMAGES[0], texts)
    assert isinstance(FLOAT32, CrossEncoder)
    assert scores.dtype == torch.float32
    assert scores.shape == (len(CAPTIONS),)
    assert not scores.requires_grad
    assert torch.equal(scores, logits[:, 1] - logits[:, 0])


def test_bfloat16_keeps_head_and_score_in_float32() -> None:
    """Scores are no bfloat16 values, and near those of float32."""
    model = teacher(0, torch.bfloat16)
    scores = model.score(seen(model, pictures(1))[0], model.encode_texts(CAPTIONS))
    exact = FLOAT32.score(IMAGES[0], FLOAT32.encode_texts(CAPTIONS))
    assert not torch.equal(scores, scores.bfloat16().float())
    # The poolers' tanh is near 1, where bfloat16 is coarse.
    assert model.model.bridgetower.cross_modal_image_pooler.dense.weight.dtype == torch.float32
    assert 1e-6 < (scores - exact).abs().max() < 0.2 * exact.std()


def test_long_captions_are_cut_by_the_tokenizer_and_keep_their_count() -> None:
    """Only the ids are cut, the separator stays last, and the count of before is known."""
    model = teacher(0, torch.float64, max_text_tokens=6)
    short, long = model.encode_texts(["a dog", "a man beside a red tree beside a small red house"])
    assert (model.text_tokens(short), short.states.shape[1]) == (4, 4)
    assert (model.text_tokens(long), long.states.shape[1]) == (13, 6)
    assert model.text_tokens(long) > model.max_text_tokens >= model.text_tokens(short)
    image = pictures(1)[0]
    found = model.logits([(seen(model, [image])[0], [long])])
    torch.testing.assert_close(found, plain_logits(random_model(0).double(), image, ["a man beside a"]), rtol=0, atol=1e-12)


def test_the_longest_caption_fills_the_position_embeddings() -> None:
    """25 rows, of which the padding token's is none; one token more is refused."""
    assert FLOAT32.max_text_tokens == 24
    image, longest = pictures(1)[0], " ".join(WORDS * 2)
    model = teacher(0, torch.float64)
    text = model.encode_texts([longest])
    assert text[0].tokens == 24
    expected = plain_logits(random_model(0).double(), image, [longest])
    torch.testing.assert_close(model.logits([(seen(model, [image])[0], text)]), expected, rtol=0, atol=1e-12)
    with pytest.raises(SettingsError, match=r"teacher\.max_text_tokens is 25; expected at most 24"):
        teacher(max_text_tokens=25)


def save(folder: Path, model: torch.nn.Module, **parts: object) -> Path:
    """A folder as `save_pretrained` writes it; a part that is None is left out."""
    for part in {"model": model, "tokenizer": word_tokenizer(WORDS, 24), "processor": processor(), **parts}.values():
        if part is not None:
            part.save_pretrained(folder)
    return folder


def test_a_saved_folder_loads_and_scores_alike(tmp_path: Path) -> None:
    """What transformers saved gives the same bits."""
    loaded = BridgeTowerTeacher.load(save(tmp_path, random_model(0)), CPU, torch.float32, max_text_tokens=None)
    scores = loaded.score(seen(loaded, pictures(4))[1], loaded.encode_texts(CAPTIONS))
    assert torch.equal(scores, FLOAT32.score(IMAGES[1], FLOAT32.encode_texts(CAPTIONS)))


def test_facts_need_no_weights(tmp_path: Path) -> None:
    """The maximum length resolves to what it means, so that a default spelled out is the same teacher."""
    save(tmp_path, random_model(0), tokenizer=word_tokenizer(WORDS, 600))
    (tmp_path / "model.safetensors").unlink()
    for wanted in (None, 24):
        assert BridgeTowerTeacher.facts(tmp_path, max_text_tokens=wanted) == {"score": "margin", "max_text_tokens": 24}
    assert BridgeTowerTeacher.facts(tmp_path, max_text_tokens=9) == {"score": "margin", "max_text_tokens": 9}
    # The published 514 rows begin after padding token 1; a configuration may leave both out.
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bridgetower"}))
    assert BridgeTowerTeacher.facts(tmp_path)["max_text_tokens"] == 512


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": None}, "no tokenizer in it; expected one of tokenizer.json"),
        ({"processor": None}, "no image processor in it"),
        ({"processor": processor(64)}, "resizes pictures to 64 and crops them to 64; expected pictures of 32 x 32"),
        ({"processor": processor(do_center_crop=False)}, "do_center_crop is false in its image processor; expected true"),
    ],
)
def test_a_part_that_is_missing_or_does_not_fit_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """One line instead of a silent default."""
    with pytest.raises(ModelError, match=message):
        BridgeTowerTeacher.load(save(tmp_path, random_model(0), **change), CPU, torch.float32)


@pytest.mark.parametrize("crop", [{}, {"crop_size": None}, {"crop_size": 32}])
def test_a_crop_left_out_is_the_size(tmp_path: Path, crop: dict[str, object]) -> None:
    """Without it transformers 5 would crop to 288, or fail at the first picture where the crop is one number."""
    save(tmp_path, random_model(0))
    file = tmp_path / "preprocessor_config.json"
    written = json.loads(file.read_text())
    del written["crop_size"]
    file.write_text(json.dumps({**written, **crop}))
    loaded = BridgeTowerTeacher.load(tmp_path, CPU, torch.float32)
    assert torch.equal(loaded.preprocess(pictures(1)[0]), FLOAT32.preprocess(pictures(1)[0]))


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    """A checkpoint without the matching head is refused, as is a folder without weights."""
    model = random_model(0)
    del model.itm_score
    with pytest.raises(ModelError, match=r"2 weights are missing \(first: itm_score.fc.bias\)"):
        BridgeTowerTeacher.load(save(tmp_path, model), CPU, torch.float32)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        BridgeTowerTeacher.load(tmp_path, CPU, torch.float32)


def test_a_vision_tower_with_fewer_layers_is_refused(tmp_path: Path) -> None:
    """Each bridge needs a layer of both towers; transformers would fail at the first picture."""
    with pytest.raises(ModelError, match="its vision tower has 3 layers; expected at least 4, as its text tower has"):
        BridgeTowerTeacher.load(save(tmp_path, random_model(0, vision={"remove_last_layer": True})), CPU, torch.float32)


def test_a_caption_without_tokens_is_named() -> None:
    """It would have no first token to score."""
    bare = word_tokenizer(WORDS, 24)
    bare.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    model = BridgeTowerTeacher(random_model(0), bare, processor(), CPU, torch.float32)
    with pytest.raises(ModelError, match="the tokenizer leaves nothing of the caption ' '"):
        model.encode_texts(["a dog", " "])
