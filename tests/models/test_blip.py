"""BLIP's matching head in packed execution, against the plain call of transformers as its oracle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import BlipConfig, BlipForImageTextRetrieval, BlipImageProcessorPil

from cprd_pipeline.errors import ModelError, SettingsError
from cprd_pipeline.models.blip import BlipImage, BlipTeacher
from cprd_pipeline.models.blip_folder import BlipOptions
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


def random_model(seed: int, layers: int = 3, words: int = len(WORDS)) -> BlipForImageTextRetrieval:
    """Spreads of 0.02 (by default BLIP's vision tower is constant), biases and norms that are not their neutral values."""
    torch.manual_seed(seed)
    text = {
        "vocab_size": 4 + words + 2,
        "hidden_size": 48,
        "encoder_hidden_size": 32,
        "intermediate_size": 80,
        "num_hidden_layers": layers,
        "num_attention_heads": 6,
        "max_position_embeddings": 24,
        "initializer_range": 0.05,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "sep_token_id": 2,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
        "initializer_range": 0.05,
    }
    model = BlipForImageTextRetrieval(BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=16))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def processor() -> BlipImageProcessorPil:
    """Pictures of 32 x 32."""
    return BlipImageProcessorPil(size={"height": 32, "width": 32})


def teacher(seed: int = 0, dtype: torch.dtype = torch.float32, **options: object) -> BlipTeacher:
    """The adapter around `random_model(seed)`."""
    return BlipTeacher(random_model(seed), word_tokenizer(WORDS, 24), processor(), CPU, dtype, BlipOptions(**options))


def seen(model: BlipTeacher, images: list[Image.Image]) -> list[BlipImage]:
    """Pictures as the scorer loop gives them to the teacher."""
    return model.encode_images([model.preprocess(image) for image in images])


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Noise of 40 x 36 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 40, 36, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in pixels]


def plain_logits(
    model: BlipForImageTextRetrieval, image: Image.Image, captions: list[str], *, masked: bool = True, padding: object = True
) -> torch.Tensor:
    """One ordinary, padded call for all captions."""
    dtype = next(model.parameters()).dtype
    pixels = processor()(images=[image], return_tensors="pt")["pixel_values"].to(dtype)
    tokens = word_tokenizer(WORDS, 24)(captions, padding=padding, return_tensors="pt")
    mask = tokens["attention_mask"] if masked else torch.ones_like(tokens["attention_mask"])
    with torch.inference_mode():
        repeated = pixels.expand(len(captions), -1, -1, -1)
        return model(tokens["input_ids"], repeated, attention_mask=mask, use_itm_head=True).itm_score


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
        assert margin.std() > 1e-3
        assert torch.equal((found[:, 1] - found[:, 0]).argsort(), margin.argsort())


def test_a_single_layer_works() -> None:
    """The first layer may be the last one."""
    model = BlipTeacher(random_model(3, layers=1), word_tokenizer(WORDS, 24), processor(), CPU, torch.float64)
    image = pictures(1)[0]
    found = model.logits([(seen(model, [image])[0], model.encode_texts(CAPTIONS))])
    torch.testing.assert_close(found, plain_logits(random_model(3, layers=1).double(), image, CAPTIONS), rtol=0, atol=1e-12)


def test_what_must_differ_differs() -> None:
    """A mirrored picture, another picture, and padding without a mask give other scores: the comparison can fail."""
    packed, plain = teacher(0, torch.float64), random_model(0).double()
    image = pictures(1)[0]
    found = packed.logits([(seen(packed, [image])[0], packed.encode_texts(CAPTIONS))])
    others = {
        "mirrored": plain_logits(plain, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), CAPTIONS),
        "another picture": plain_logits(plain, pictures(1, seed=9)[0], CAPTIONS),
        "no mask": plain_logits(plain, image, CAPTIONS, masked=False, padding="max_length"),
        "swapped captions": plain_logits(plain, image, CAPTIONS[::-1]),
    }
    layers = plain.text_encoder.encoder.layer
    layers[0], layers[1] = layers[1], layers[0]
    others["swapped layers"] = plain_logits(plain, image, CAPTIONS)
    for name, other in others.items():
        assert (found - other).abs().max() > 1e-3, name


FLOAT32 = teacher()
IMAGES = seen(FLOAT32, pictures(4))


@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join), min_size=1, max_size=12), st.integers(0, 3)
)
@settings(max_examples=40, deadline=None)
def test_a_score_does_not_depend_on_company(captions: list[str], image: int) -> None:
    """Alone, among others, and in another order a pair has the same score, within 5e-6."""
    together = FLOAT32.score(IMAGES[image], FLOAT32.encode_texts(captions))
    alone = torch.cat([FLOAT32.score(IMAGES[image], FLOAT32.encode_texts([caption])) for caption in captions])
    turned = FLOAT32.score(IMAGES[image], FLOAT32.encode_texts(captions[::-1])).flip(0)
    torch.testing.assert_close(together, alone, rtol=0, atol=5e-6)
    torch.testing.assert_close(together, turned, rtol=0, atol=5e-6)


@given(
    st.lists(
        st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=40, deadline=None)
def test_several_images_in_one_call_score_as_one_by_one(captions: list[list[str]]) -> None:
    """Each image meets its own captions only, within 5e-6."""
    groups = [(image, FLOAT32.encode_texts(texts)) for image, texts in zip(IMAGES, captions, strict=False)]
    together = FLOAT32.score_groups(groups)
    torch.testing.assert_close(together, torch.cat([FLOAT32.score(*group) for group in groups]), rtol=0, atol=5e-6)


def test_several_images_equal_the_plain_call() -> None:
    """Two images with other captions each, in float64 within 1e-12; the images swapped differ."""
    packed, plain = teacher(0, torch.float64), random_model(0).double()
    images, captions = pictures(2), [CAPTIONS[:3], CAPTIONS[2:]]
    encoded = [packed.encode_texts(texts) for texts in captions]
    expected = torch.cat([plain_logits(plain, image, texts) for image, texts in zip(images, captions, strict=True)])
    found = packed.logits(list(zip(seen(packed, images), encoded, strict=True)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    swapped = packed.logits(list(zip(seen(packed, images[::-1]), encoded, strict=True)))
    assert (swapped - expected).abs().max() > 1e-3


@pytest.mark.parametrize("first_token", ["cls", "enc"])
def test_the_published_score_adds_the_contrastive_cosine(first_token: str) -> None:
    """Match logit plus what the plain call says without its matching head, which reads [CLS] whatever the matching head reads."""
    packed, plain = teacher(0, torch.float64, score="match_logit+itc", first_token=first_token), random_model(0).double()
    logit_alone = teacher(0, torch.float64, score="match_logit", first_token=first_token)
    image = pictures(1)[0]
    tokens = word_tokenizer(WORDS, 24)(CAPTIONS, padding=True, return_tensors="pt")
    pixels = processor()(images=[image], return_tensors="pt")["pixel_values"].double()
    with torch.inference_mode():
        cosines = plain(tokens["input_ids"], pixels, attention_mask=tokens["attention_mask"], use_itm_head=False).itm_score[0]
    group = (seen(packed, [image])[0], packed.encode_texts(CAPTIONS))
    expected = packed.logits([group])[:, 1] + cosines
    assert cosines.std() > 1e-3
    torch.testing.assert_close(packed.score(*group), expected.float(), rtol=0, atol=1e-6)
    alone = logit_alone.score(seen(logit_alone, [image])[0], logit_alone.encode_texts(CAPTIONS))
    torch.testing.assert_close(alone, packed.logits([group])[:, 1].float(), rtol=0, atol=1e-6)


def test_an_image_does_not_depend_on_its_batch() -> None:
    """Encoded alone or with others: the same keys and values, within 1e-12 in float64."""
    model = teacher(0, torch.float64)
    together, alone = seen(model, pictures(4))[2], seen(model, pictures(4)[2:3])[0]
    torch.testing.assert_close(together.keys_values, alone.keys_values, rtol=0, atol=1e-12)


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
    assert (scores - exact).abs().max() < 0.1
    assert (scores - exact).abs().max() > 1e-6


def test_weights_are_not_held_twice() -> None:
    """The model's own linear layers look into the fused weights."""
    layer = FLOAT32.model.text_encoder.encoder.layer[0]
    for part in (layer.attention.self, layer.crossattention.self):
        assert part.query.weight.shape == (48, 48)
    own = layer.attention.self
    assert own.query.weight.untyped_storage().data_ptr() == own.value.weight.untyped_storage().data_ptr()


def test_long_captions_are_cut_by_the_tokenizer_and_keep_their_count() -> None:
    """Only the ids are cut, the separator stays last, and the count of before is known."""
    model = teacher(0, torch.float64, max_text_tokens=6)
    short, long = model.encode_texts(["a dog", "a man beside a red tree beside a small red house"])
    assert (short.caption.tokens, len(short.caption.ids)) == (4, 4)
    assert (long.caption.tokens, len(long.caption.ids)) == (13, 6)
    assert long.caption.ids[-1] == 2
    assert model.text_tokens(long) > model.max_text_tokens >= model.text_tokens(short)
    image = pictures(1)[0]
    tokens = word_tokenizer(WORDS, 24)(["a man beside a"], return_tensors="pt")
    assert torch.equal(tokens["input_ids"][0], long.caption.ids)
    found = model.logits([(seen(model, [image])[0], [long])])
    torch.testing.assert_close(found, plain_logits(random_model(0).double(), image, ["a man beside a"]), rtol=0, atol=1e-12)


def test_a_limit_above_the_models_own_is_refused() -> None:
    """The position embeddings end somewhere."""
    with pytest.raises(SettingsError, match=r"teacher\.max_text_tokens is 25; expected at most 24"):
        teacher(max_text_tokens=25)


def test_enc_in_token_0_equals_the_plain_call_with_that_id() -> None:
    """[ENC] is the last row of the vocabulary when the tokenizer does not name it; the scores move."""
    model, plain = teacher(0, torch.float64, first_token="enc"), random_model(0).double()
    image = pictures(1)[0]
    tokens = word_tokenizer(WORDS, 24)(CAPTIONS, padding=True, return_tensors="pt")
    tokens["input_ids"][:, 0] = plain.config.text_config.vocab_size - 1
    pixels = processor()(images=[image], return_tensors="pt")["pixel_values"].double()
    with torch.inference_mode():
        expected = plain(tokens["input_ids"], pixels, attention_mask=tokens["attention_mask"]).itm_score
    found = model.logits([(seen(model, [image])[0], model.encode_texts(CAPTIONS))])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert (found - plain_logits(plain, image, CAPTIONS)).abs().max() > 1e-3


def test_enc_by_its_name_and_not_at_all() -> None:
    """A tokenizer that knows [ENC] decides; a vocabulary without room for it is an error."""
    named = word_tokenizer([*WORDS, "extra"], 24)
    named.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    model = BlipTeacher(random_model(0), named, processor(), CPU, torch.float32, BlipOptions(first_token="enc"))
    assert model.encode_texts(["a dog"])[0].caption.ids[0] == named.convert_tokens_to_ids("[ENC]")
    full = word_tokenizer([*WORDS, "extra"], 24)
    with pytest.raises(SettingsError, match=r"this teacher has no \[ENC\]; set it to cls"):
        BlipTeacher(random_model(0), full, processor(), CPU, torch.float32, BlipOptions(first_token="enc"))


def save(folder: Path, model: torch.nn.Module, **parts: object) -> Path:
    """A folder as `save_pretrained` writes it; a part that is None is left out."""
    for part in {"model": model, "tokenizer": word_tokenizer(WORDS, 24), "processor": processor(), **parts}.values():
        if part is not None:
            part.save_pretrained(folder)
    return folder


def test_a_saved_folder_loads_and_scores_alike(tmp_path: Path) -> None:
    """What transformers saved gives the same bits."""
    loaded = BlipTeacher.load(save(tmp_path, random_model(0)), CPU, torch.float32)
    scores = loaded.score(seen(loaded, pictures(4))[1], loaded.encode_texts(CAPTIONS))
    assert torch.equal(scores, FLOAT32.score(IMAGES[1], FLOAT32.encode_texts(CAPTIONS)))


def test_facts_need_no_weights(tmp_path: Path) -> None:
    """Maximum length and first token resolve to what they mean, so that a default spelled out is the same teacher."""
    save(tmp_path, random_model(0))
    (tmp_path / "model.safetensors").unlink()
    plain = {"score": "margin", "first_token": None, "max_text_tokens": 24}
    assert BlipTeacher.facts(tmp_path, first_token="cls", max_text_tokens=None) == plain
    assert BlipTeacher.facts(tmp_path, first_token="cls", max_text_tokens=24) == plain
    chosen = BlipTeacher.facts(tmp_path, first_token="enc", max_text_tokens=9)
    assert chosen == {"score": "margin", "first_token": 16, "max_text_tokens": 9}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": None}, "no tokenizer in it; expected one of tokenizer.json"),
        ({"processor": None}, "no image processor in it"),
        ({"processor": BlipImageProcessorPil(size={"height": 48, "width": 48})}, "pictures of 48 x 48; expected 32 x 32"),
    ],
)
def test_a_part_that_is_missing_or_does_not_fit_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """One line instead of a silent default."""
    with pytest.raises(ModelError, match=message):
        BlipTeacher.load(save(tmp_path, random_model(0), **change), CPU, torch.float32)


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    """A checkpoint without the matching head is refused, as is a folder without weights."""
    model = random_model(0)
    del model.itm_head
    with pytest.raises(ModelError, match=r"2 weights are missing \(first: itm_head.bias\)"):
        BlipTeacher.load(save(tmp_path, model), CPU, torch.float32)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        BlipTeacher.load(tmp_path, CPU, torch.float32)


def test_a_text_tower_without_cross_attention_is_refused(tmp_path: Path) -> None:
    """is_decoder false removes it without a word."""
    model = random_model(0)
    model.config.text_config.is_decoder = False
    with pytest.raises(ModelError, match="is_decoder is false"):
        BlipTeacher.load(save(tmp_path, model), CPU, torch.float32)


def test_a_caption_without_tokens_is_named() -> None:
    """It would take the next caption's first token."""
    bare = word_tokenizer(WORDS, 24)
    bare.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    model = BlipTeacher(random_model(0), bare, processor(), CPU, torch.float32)
    with pytest.raises(ModelError, match="the tokenizer leaves nothing of the caption ' '"):
        model.encode_texts(["a dog", " "])
