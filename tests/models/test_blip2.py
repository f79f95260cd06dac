"""BLIP-2's matching head in packed execution, against the plain call of transformers as its oracle."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Blip2Config, Blip2ForImageTextRetrieval, BlipImageProcessorPil

from cprd_pipeline.errors import ModelError, SettingsError
from cprd_pipeline.models.blip2 import Blip2Image, Blip2Teacher
from cprd_pipeline.models.blip2_folder import Blip2Options
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
QUERIES = 5


def random_model(seed: int, layers: int = 4, frequency: int = 2, image_token: int | None = None) -> Blip2ForImageTextRetrieval:
    """Spreads of 0.05 (by default the vision tower is constant and all queries are zero), biases and norms that are not neutral."""
    torch.manual_seed(seed)
    qformer = {
        "vocab_size": 4 + len(WORDS) + 2,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": layers,
        "num_attention_heads": 6,
        "max_position_embeddings": 24,
        "initializer_range": 0.05,
        "cross_attention_frequency": frequency,
        "use_qformer_text_input": True,
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
    config = Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        num_query_tokens=QUERIES,
        image_text_hidden_size=16,
        initializer_range=0.05,
        image_token_index=image_token,
    )
    model = Blip2ForImageTextRetrieval(config)
    with torch.no_grad():
        model.query_tokens.normal_()
        model.itm_head.weight.normal_(std=0.5)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def processor() -> BlipImageProcessorPil:
    """Pictures of 32 x 32."""
    return BlipImageProcessorPil(size={"height": 32, "width": 32})


def around(model: Blip2ForImageTextRetrieval, dtype: torch.dtype = torch.float32, **options: object) -> Blip2Teacher:
    """The adapter of a model."""
    return Blip2Teacher(model, word_tokenizer(WORDS, 24), processor(), CPU, dtype, Blip2Options(**options))


def seen(model: Blip2Teacher, images: list[Image.Image]) -> list[Blip2Image]:
    """Pictures as the scorer loop gives them to the teacher."""
    return model.encode_images([model.preprocess(image) for image in images])


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Noise of 40 x 36 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 40, 36, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in pixels]


def plain_call(
    model: Blip2ForImageTextRetrieval,
    image: Image.Image,
    captions: list[str],
    *,
    matching: bool = True,
    masked: bool = True,
    padding: object = True,
) -> torch.Tensor:
    """One ordinary, padded call for all captions, with unfused attention: logits [N 2], or without `matching` cosines [N]."""
    model.set_attn_implementation("eager")
    pixels = processor()(images=[image], return_tensors="pt")["pixel_values"].to(next(model.parameters()).dtype)
    tokens = word_tokenizer(WORDS, 24)(captions, padding=padding, return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    if not masked:
        mask = torch.ones_like(mask)
    if (image_token := model.config.image_token_index) is not None:
        # As Blip2Processor does it: the queries' places stand in the ids already.
        ids = torch.cat([torch.full((len(ids), QUERIES), image_token), ids], 1)
        mask = torch.cat([torch.ones(len(mask), QUERIES, dtype=mask.dtype), mask], 1)
    if matching:
        # One picture with several captions raises here, unlike in the contrastive path.
        pixels = pixels.expand(len(captions), -1, -1, -1)
    with torch.inference_mode():
        called = model(pixels, ids, attention_mask=mask, use_image_text_matching_head=matching).logits_per_image
    return called if matching else called[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_logits_equal_the_plain_call(seed: int, dtype: torch.dtype) -> None:
    """Both logits of every pair within 5e-6 (float32) and 1e-12 (float64), the captions in the same order of score."""
    packed, plain = around(random_model(seed), dtype), random_model(seed).to(dtype)
    for image, encoded in zip(pictures(3), seen(packed, pictures(3)), strict=True):
        expected = plain_call(plain, image, CAPTIONS)
        found = packed.logits([(encoded, packed.encode_texts(CAPTIONS))])
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[dtype])
        margin = expected[:, 1] - expected[:, 0]
        assert margin.std() > 0.03
        assert torch.equal((found[:, 1] - found[:, 0]).argsort(), margin.argsort())


@pytest.mark.parametrize(("layers", "frequency"), [(1, 1), (1, 2), (2, 1), (3, 2), (5, 3)])
def test_any_number_of_layers_works(layers: int, frequency: int) -> None:
    """The first layer may be the last one, and the last one may or may not look at the image."""
    packed, plain = (random_model(3, layers, frequency).double() for _ in range(2))
    model, image = around(packed, torch.float64), pictures(1)[0]
    found = model.logits([(seen(model, [image])[0], model.encode_texts(CAPTIONS))])
    torch.testing.assert_close(found, plain_call(plain, image, CAPTIONS), rtol=0, atol=1e-12)


def test_places_for_the_image_in_the_ids_change_nothing() -> None:
    """Published configurations name an image token, for which the processor leaves places before the caption."""
    packed, plain = (random_model(0, image_token=16).double() for _ in range(2))
    model, image = around(packed, torch.float64, score="match_logit+itc"), pictures(1)[0]
    group = (seen(model, [image])[0], model.encode_texts(CAPTIONS))
    expected = plain_call(plain, image, CAPTIONS)
    torch.testing.assert_close(model.logits([group]), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(expected, plain_call(random_model(0).double(), image, CAPTIONS), rtol=0, atol=1e-12)
    published = expected[:, 1] + plain_call(plain, image, CAPTIONS, matching=False)
    torch.testing.assert_close(model.score(*group), published.float(), rtol=0, atol=1e-6)


def test_what_must_differ_differs() -> None:
    """Other pictures, other captions, other layers, no mask, other queries: the comparison can fail."""
    packed, plain = around(random_model(0), torch.float64), random_model(0).double()
    image = pictures(1)[0]
    found = packed.logits([(seen(packed, [image])[0], packed.encode_texts(CAPTIONS))])
    swapped, shuffled, unasked = (random_model(0).double() for _ in range(3))
    layers = swapped.qformer.encoder.layer
    layers[0], layers[2] = layers[2], layers[0]
    for layer in shuffled.qformer.encoder.layer:
        layer.intermediate, layer.intermediate_query = layer.intermediate_query, layer.intermediate
    unasked.query_tokens.data.zero_()
    others = {
        "mirrored": plain_call(plain, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), CAPTIONS),
        "another picture": plain_call(plain, pictures(1, seed=9)[0], CAPTIONS),
        "no mask": plain_call(plain, image, CAPTIONS, masked=False, padding="max_length"),
        "swapped captions": plain_call(plain, image, CAPTIONS[::-1]),
        "swapped layers": plain_call(swapped, image, CAPTIONS),
        "swapped sides": plain_call(shuffled, image, CAPTIONS),
        "equal queries": plain_call(unasked, image, CAPTIONS),
    }
    for name, other in others.items():
        assert (found - other).abs().max() > 1e-2, name


FLOAT32 = around(random_model(0))
IMAGES = seen(FLOAT32, pictures(4))
ITC = around(random_model(0), score="match_logit+itc")
ITC_IMAGES = seen(ITC, pictures(4))
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


@given(st.lists(SENTENCES, min_size=1, max_size=10), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_a_score_does_not_depend_on_company(captions: list[str], image: int) -> None:
    """Alone, among others, and in another order a pair has the same score, within 5e-6."""
    for model, images in ((FLOAT32, IMAGES), (ITC, ITC_IMAGES)):
        together = model.score(images[image], model.encode_texts(captions))
        alone = torch.cat([model.score(images[image], model.encode_texts([caption])) for caption in captions])
        turned = model.score(images[image], model.encode_texts(captions[::-1])).flip(0)
        torch.testing.assert_close(together, alone, rtol=0, atol=5e-6)
        torch.testing.assert_close(together, turned, rtol=0, atol=5e-6)


@given(st.lists(st.lists(SENTENCES, min_size=1, max_size=4), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_several_images_in_one_call_score_as_one_by_one(captions: list[list[str]]) -> None:
    """Each image meets its own captions only, within 5e-6."""
    for model, images in ((FLOAT32, IMAGES), (ITC, ITC_IMAGES)):
        groups = [(image, model.encode_texts(texts)) for image, texts in zip(images, captions, strict=False)]
        together = model.score_groups(groups)
        torch.testing.assert_close(together, torch.cat([model.score(*group) for group in groups]), rtol=0, atol=5e-6)


def test_several_images_equal_the_plain_call() -> None:
    """Two images with other captions each, in float64 within 1e-12; the images swapped differ."""
    packed, plain = around(random_model(0), torch.float64), random_model(0).double()
    images, captions = pictures(2), [CAPTIONS[:3], CAPTIONS[2:]]
    encoded = [packed.encode_texts(texts) for texts in captions]
    expected = torch.cat([plain_call(plain, image, texts) for image, texts in zip(images, captions, strict=True)])
    found = packed.logits(list(zip(seen(packed, images), encoded, strict=True)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    swapped = packed.logits(list(zip(seen(packed, images[::-1]), encoded, strict=True)))
    assert (swapped - expected).abs().max() > 1e-3


def test_an_image_does_not_depend_on_its_batch() -> None:
    """Encoded alone or with others: the same keys, values and features, within 1e-12 in float64."""
    model = around(random_model(0), torch.float64, score="match_logit+itc")
    together, alone = seen(model, pictures(4))[2], seen(model, pictures(4)[2:3])[0]
    torch.testing.assert_close(together.keys_values, alone.keys_values, rtol=0, atol=1e-12)
    torch.testing.assert_close(together.features, alone.features, rtol=0, atol=1e-12)


def test_preprocessing_pickles() -> None:
    """Decoding processes get it, and make the same pixels."""
    copy = pickle.loads(pickle.dumps(FLOAT32.preprocess))
    assert torch.equal(copy(pictures(1)[0]), FLOAT32.preprocess(pictures(1)[0]))


def test_the_score_is_the_margin_in_float32() -> None:
    """Match minus no-match, one value a caption, no gradient, no softmax."""
    texts = FLOAT32.encode_texts(CAPTIONS)
    logits, scores = FLOAT32.logits([(IMAGES[0], texts)]), FLOAT32.score(IMAGES[0], texts)
    assert isinstance(FLOAT32, CrossEncoder)
    assert scores.dtype == torch.float32
    assert scores.shape == (len(CAPTIONS),)
    assert not scores.requires_grad
    assert torch.equal(scores, logits[:, 1] - logits[:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_published_score_adds_the_contrastive_cosine(dtype: torch.dtype) -> None:
    """Match logit plus what the plain call says without its matching head, several images in one call."""
    packed, plain = around(random_model(0), dtype, score="match_logit+itc"), random_model(0).to(dtype)
    logit_alone = around(random_model(0), dtype, score="match_logit")
    images, captions = pictures(2), [CAPTIONS[:3], CAPTIONS[2:]]
    pairs = list(zip(images, captions, strict=True))
    match_logits = torch.cat([plain_call(plain, *pair)[:, 1] for pair in pairs])
    cosines = torch.cat([plain_call(plain, *pair, matching=False) for pair in pairs])
    assert cosines.std() > 1e-3
    for model, expected in ((packed, match_logits + cosines), (logit_alone, match_logits)):
        encoded = [model.encode_texts(texts) for texts in captions]
        found = model.score_groups(list(zip(seen(model, images), encoded, strict=True)))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected.float(), rtol=0, atol=5e-6)


def test_contrastive_features_equal_those_of_the_plain_call() -> None:
    """One feature a query and one a caption, within 1e-12 in float64; without need for them there are none."""
    model, plain = around(random_model(0), torch.float64, score="match_logit+itc"), random_model(0).double()
    image = pictures(1)[0]
    tokens = word_tokenizer(WORDS, 24)(CAPTIONS, padding=True, return_tensors="pt")
    pixels = processor()(images=[image], return_tensors="pt")["pixel_values"].double()
    with torch.inference_mode():
        expected = plain(pixels, tokens["input_ids"], attention_mask=tokens["attention_mask"])
    features = torch.stack([text.feature for text in model.encode_texts(CAPTIONS)])
    torch.testing.assert_close(features, expected.text_embeds, rtol=0, atol=1e-12)
    torch.testing.assert_close(seen(model, [image])[0].features, expected.image_embeds[0], rtol=0, atol=1e-12)
    assert IMAGES[0].features is None
    assert FLOAT32.encode_texts(["dog"])[0].feature is None


@pytest.mark.parametrize("score", ["margin", "match_logit+itc"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_heads_and_score_in_float32(dtype: torch.dtype, score: str) -> None:
    """Scores are no half-precision values, and near those of float32."""
    model, full = around(random_model(0), dtype, score=score), {"margin": FLOAT32, "match_logit+itc": ITC}[score]
    scores = model.score(seen(model, pictures(1))[0], model.encode_texts(CAPTIONS))
    exact = full.score({"margin": IMAGES, "match_logit+itc": ITC_IMAGES}[score][0], full.encode_texts(CAPTIONS))
    assert model.model.qformer.encoder.layer[0].output.dense.weight.dtype == dtype
    assert not torch.equal(scores, scores.to(dtype).float())
    assert (scores - exact).abs().max() < {torch.bfloat16: 0.08, torch.float16: 0.02}[dtype]
    assert (scores - exact).abs().max() > 1e-6


def test_weights_are_not_held_twice() -> None:
    """The model's own linear layers look into the fused weights."""
    layers = FLOAT32.model.qformer.encoder.layer
    own = layers[0].attention.attention
    assert own.query.weight.shape == (48, 48)
    assert own.query.weight.untyped_storage().data_ptr() == own.value.weight.untyped_storage().data_ptr()
    crossing = [layers[number].crossattention.attention for number in (0, 2)]
    assert crossing[0].key.weight.untyped_storage().data_ptr() == crossing[1].value.weight.untyped_storage().data_ptr()


def test_long_captions_are_cut_by_the_tokenizer_and_keep_their_count() -> None:
    """Only the ids are cut, the separator stays last, and the count of before is known."""
    model = around(random_model(0), torch.float64, max_text_tokens=6)
    short, long = model.encode_texts(["a dog", "a man beside a red tree beside a small red house"])
    assert (short.caption.tokens, len(short.caption.ids)) == (4, 4)
    assert (long.caption.tokens, len(long.caption.ids)) == (13, 6)
    assert long.caption.ids[-1] == 2
    assert model.text_tokens(long) > model.max_text_tokens >= model.text_tokens(short)
    image = pictures(1)[0]
    found = model.logits([(seen(model, [image])[0], [long])])
    torch.testing.assert_close(found, plain_call(random_model(0).double(), image, ["a man beside a"]), rtol=0, atol=1e-12)


def test_a_limit_above_the_models_own_is_refused() -> None:
    """The position embeddings end somewhere."""
    with pytest.raises(SettingsError, match=r"teacher\.max_text_tokens is 25; expected at most 24"):
        around(random_model(0), max_text_tokens=25)


def save(folder: Path, model: torch.nn.Module, **parts: object) -> Path:
    """A folder as `save_pretrained` writes it; a part that is None is left out."""
    for part in {"model": model, "tokenizer": word_tokenizer(WORDS, 24), "processor": processor(), **parts}.values():
        if part is not None:
            part.save_pretrained(folder)
    return folder


def test_a_saved_folder_loads_and_scores_alike(tmp_path: Path) -> None:
    """What transformers saved gives the same bits, with fused attention in the vision tower."""
    loaded = Blip2Teacher.load(save(tmp_path, random_model(0)), CPU, torch.float32, score="match_logit+itc")
    scores = loaded.score(seen(loaded, pictures(4))[1], loaded.encode_texts(CAPTIONS))
    assert torch.equal(scores, ITC.score(ITC_IMAGES[1], ITC.encode_texts(CAPTIONS)))
    assert loaded.model.vision_model.config._attn_implementation == "sdpa"


def test_facts_need_no_weights(tmp_path: Path) -> None:
    """The maximum length resolves to what it means, so that a default spelled out is the same teacher."""
    save(tmp_path, random_model(0))
    (tmp_path / "model.safetensors").unlink()
    plain = {"score": "margin", "max_text_tokens": 24}
    assert Blip2Teacher.facts(tmp_path, score="margin", max_text_tokens=None) == plain
    assert Blip2Teacher.facts(tmp_path, score="margin", max_text_tokens=24) == plain
    chosen = Blip2Teacher.facts(tmp_path, score="match_logit+itc", max_text_tokens=9)
    assert chosen == {"score": "match_logit+itc", "max_text_tokens": 9}
    with pytest.raises(SettingsError, match="expected at most 24"):
        Blip2Teacher.facts(tmp_path, max_text_tokens=25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": None}, "no tokenizer in it; expected one of tokenizer.json"),
        ({"processor": None}, "no image processor in it"),
        ({"processor": BlipImageProcessorPil(size={"height": 24, "width": 24})}, "pictures of 24 x 24; expected 32 x 32"),
    ],
)
def test_a_part_that_is_missing_or_does_not_fit_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """One line instead of a silent default; a smaller picture would run, with the wrong positions."""
    with pytest.raises(ModelError, match=message):
        Blip2Teacher.load(save(tmp_path, random_model(0), **change), CPU, torch.float32)


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    """A checkpoint without the matching head is refused, as is a folder without weights."""
    model = random_model(0)
    del model.itm_head
    with pytest.raises(ModelError, match=r"2 weights are missing \(first: itm_head.bias\); expected BLIP-2 with its matching head"):
        Blip2Teacher.load(save(tmp_path, model), CPU, torch.float32)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        Blip2Teacher.load(tmp_path, CPU, torch.float32)


def test_a_qformer_that_reads_no_captions_is_refused(tmp_path: Path) -> None:
    """As in the generative BLIP-2: transformers would drop the weights of its text side without a word."""
    model = random_model(0)
    model.config.qformer_config.use_qformer_text_input = False
    with pytest.raises(ModelError, match=r"use_qformer_text_input is not true .* expected BLIP-2 with its matching head"):
        Blip2Teacher.load(save(tmp_path, model), CPU, torch.float32)
