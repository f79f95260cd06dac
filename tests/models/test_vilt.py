"""ViLT's retrieval head on unpadded pairs, against the plain call of transformers as its oracle."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import ViltConfig, ViltForImageAndTextRetrieval, ViltImageProcessorPil

from cprd_pipeline.errors import ModelError, SettingsError
from cprd_pipeline.models.cross_encoder import CrossEncoder
from cprd_pipeline.models.single_stream import PAIRS_AT_ONCE
from cprd_pipeline.models.vilt import ViltTeacher
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
# Height and width before preprocessing, and the patches that are left of them.
SIZES = {(36, 40): (4, 4), (60, 36): (6, 4), (30, 70): (2, 6), (50, 50): (4, 4)}


def random_model(seed: int, layers: int = 3, **changes: object) -> ViltForImageAndTextRetrieval:
    """Weights of spread 0.05, biases, norms, [CLS] and positions that are not their neutral values."""
    torch.manual_seed(seed)
    shape = {"hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 6, "num_hidden_layers": layers}
    sizes = {"vocab_size": 4 + len(WORDS), "max_position_embeddings": 24, "image_size": 32, "patch_size": 8, "pad_token_id": 0}
    model = ViltForImageAndTextRetrieval(ViltConfig(**shape, **sizes, initializer_range=0.05, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 or len(parameter) == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def processor() -> ViltImageProcessorPil:
    """Pictures whose shorter side is 32, or less where the longer one would be above 53; both multiples of 8."""
    return ViltImageProcessorPil(size={"shortest_edge": 32}, size_divisor=8)


def teacher(seed: int = 0, dtype: torch.dtype = torch.float32, layers: int = 3, **options: object) -> ViltTeacher:
    """The adapter around `random_model(seed)`."""
    return ViltTeacher(random_model(seed, layers), word_tokenizer(WORDS, 24), processor(), CPU, dtype, **options)


def seen(model: ViltTeacher, images: list[Image.Image]) -> list[torch.Tensor]:
    """Pictures as the scorer loop gives them to the teacher."""
    return model.encode_images([model.preprocess(image) for image in images])


def pictures(seed: int = 0) -> list[Image.Image]:
    """Noise, one picture for each of `SIZES`."""
    draws = np.random.default_rng(seed)
    return [Image.fromarray(draws.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in SIZES]


def plain_logits(
    model: ViltForImageAndTextRetrieval,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    masked: bool = True,
    padding: object = True,
) -> torch.Tensor:
    """One ordinary call for pairs of a picture and a caption, padded to the largest of each; one picture may serve all."""
    dtype = next(model.parameters()).dtype
    inputs = processor()(images=list(images), return_tensors="pt")
    tokens = word_tokenizer(WORDS, 24)(list(captions), padding=padding, return_tensors="pt")
    mask = tokens["attention_mask"] if masked else torch.ones_like(tokens["attention_mask"])
    pixels = inputs["pixel_values"].to(dtype).expand(len(captions), -1, -1, -1)
    pixel_mask = inputs["pixel_mask"].expand(len(captions), -1, -1)
    with torch.inference_mode():
        return model(tokens["input_ids"], mask, pixel_values=pixels, pixel_mask=pixel_mask).logits[:, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_logits_equal_the_plain_call(seed: int, dtype: torch.dtype) -> None:
    """Every pair within 5e-6 (float32) and 1e-12 (float64), the captions in the same order of score, at each picture size."""
    packed, plain = teacher(seed, dtype), random_model(seed).to(dtype)
    for image, encoded, patches in zip(pictures(), seen(packed, pictures()), SIZES.values(), strict=True):
        assert len(encoded) == 1 + patches[0] * patches[1]
        single = torch.cat([plain_logits(plain, [image], [caption]) for caption in CAPTIONS])
        padded = plain_logits(plain, [image], CAPTIONS)
        found = packed.logits([(encoded, packed.encode_texts(CAPTIONS))])
        assert found.dtype == dtype
        torch.testing.assert_close(found, single, rtol=0, atol=TOLERANCE[dtype])
        torch.testing.assert_close(found, padded, rtol=0, atol=TOLERANCE[dtype])
        assert single.std() > 1e-3
        assert torch.equal(found.argsort(), single.argsort())


def test_groups_equal_the_plain_padded_batch() -> None:
    """Pictures of several sizes in one plain call are padded and masked there: the same logits within 1e-12."""
    packed, plain = teacher(5, torch.float64), random_model(5).double()
    texts = packed.encode_texts(CAPTIONS[:4])
    groups = [(image, [text]) for image, text in zip(seen(packed, pictures()), texts, strict=True)]
    torch.testing.assert_close(packed.logits(groups), plain_logits(plain, pictures(), CAPTIONS[:4]), rtol=0, atol=1e-12)


def test_the_plain_call_draws_an_order_that_does_not_matter() -> None:
    """Two plain calls put the patches in different orders; ours keeps one, and gives the same bits each time."""
    packed, plain = teacher(0, torch.float64), random_model(0).double()
    image, texts = pictures()[0], packed.encode_texts(CAPTIONS)
    pixels = processor()(images=[image], return_tensors="pt")["pixel_values"].double()
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        orders = [plain.vilt.embeddings.visual_embed(pixels, torch.ones(1, 32, 32), -1)[2][0] for _ in range(2)]
    assert not torch.equal(*orders)
    again = [packed.logits([(encoded, texts)]) for encoded in (seen(packed, [image])[0], seen(packed, [image])[0])]
    assert torch.equal(*again)


def test_a_limit_on_patches_is_refused(tmp_path: Path) -> None:
    """With one the plain model draws other patches in each call."""
    model = random_model(0, max_image_length=10)
    drawn = [plain_logits(model, pictures()[:1], CAPTIONS[:1]) for _ in range(4)]
    assert max((one - drawn[0]).abs().max() for one in drawn) > 1e-4
    with pytest.raises(ModelError, match="max_image_length is 10, so it draws patches at random; expected -1; set it in"):
        ViltTeacher.load(save(tmp_path, model), CPU, torch.float32)


@pytest.mark.parametrize("layers", [1, 2])
def test_few_layers_work(layers: int) -> None:
    """The first layer may be the last one, or the one before it."""
    model = teacher(3, torch.float64, layers)
    image = pictures()[1]
    found = model.logits([(seen(model, [image])[0], model.encode_texts(CAPTIONS))])
    expected = plain_logits(random_model(3, layers).double(), [image], CAPTIONS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_what_must_differ_differs() -> None:
    """A mirrored picture, other captions, padding without a mask, turned layers: each would be noticed."""
    packed, plain = teacher(0, torch.float64), random_model(0).double()
    image = pictures()[0]
    found = packed.logits([(seen(packed, [image])[0], packed.encode_texts(CAPTIONS))])
    others = {
        "mirrored": plain_logits(plain, [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)], CAPTIONS),
        "another picture": plain_logits(plain, [pictures(9)[0]], CAPTIONS),
        "no mask": plain_logits(plain, [image], CAPTIONS, masked=False, padding="max_length"),
        "swapped captions": plain_logits(plain, [image], CAPTIONS[::-1]),
    }
    plain.vilt.encoder.layer = plain.vilt.encoder.layer[::-1]
    others["turned layers"] = plain_logits(plain, [image], CAPTIONS)
    for name, other in others.items():
        assert (found - other).abs().max() > 1e-3, name


FLOAT32 = teacher()
IMAGES = seen(FLOAT32, pictures())
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
    texts = model.encode_texts(CAPTIONS * 4)
    groups = [(image, texts) for image in seen(model, pictures())]
    assert len(texts) < PAIRS_AT_ONCE < len(groups) * len(texts)
    alone = torch.cat([model.logits([group]) for group in groups])
    torch.testing.assert_close(model.logits(groups), alone, rtol=0, atol=1e-12)


def test_an_item_does_not_depend_on_its_batch() -> None:
    """Encoded alone or with others: the same embeddings, within 1e-12 in float64."""
    model = teacher(0, torch.float64)
    together, alone = seen(model, pictures())[2], seen(model, pictures()[2:3])[0]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    text, single = model.encode_texts(CAPTIONS)[2], model.encode_texts(CAPTIONS[2:3])[0]
    torch.testing.assert_close(text.states, single.states, rtol=0, atol=1e-12)
    assert text.states.shape == (9, 48)


def test_the_score_is_the_match_logit_in_float32() -> None:
    """One value a caption, no gradient, no sigmoid."""
    texts = FLOAT32.encode_texts(CAPTIONS)
    scores = FLOAT32.score(IMAGES[0], texts)
    assert isinstance(FLOAT32, CrossEncoder)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    assert torch.equal(scores, FLOAT32.logits([(IMAGES[0], texts)]))


def test_bfloat16_keeps_head_and_score_in_float32() -> None:
    """Scores are no bfloat16 values, and near those of float32."""
    model = teacher(0, torch.bfloat16)
    image = seen(model, pictures())[1]
    scores = model.score(image, model.encode_texts(CAPTIONS))
    exact = FLOAT32.score(IMAGES[1], FLOAT32.encode_texts(CAPTIONS))
    assert image.dtype == torch.bfloat16
    assert model.model.rank_output.weight.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())
    assert 1e-6 < (scores - exact).abs().max() < 0.1


def test_long_captions_are_cut_by_the_tokenizer_and_keep_their_count() -> None:
    """Only the tokens are cut, the separator stays last, and the count of before is known."""
    model = teacher(0, torch.float64, max_text_tokens=6)
    short, long = model.encode_texts(["a dog", "a man beside a red tree beside a small red house"])
    assert (short.tokens, len(short.states)) == (4, 4)
    assert (long.tokens, len(long.states)) == (13, 6)
    assert model.text_tokens(long) > model.max_text_tokens >= model.text_tokens(short)
    image = pictures()[0]
    found = model.logits([(seen(model, [image])[0], [long])])
    torch.testing.assert_close(found, plain_logits(random_model(0).double(), [image], ["a man beside a"]), rtol=0, atol=1e-12)


def test_a_limit_above_the_models_own_is_refused() -> None:
    """The position embeddings end somewhere."""
    with pytest.raises(SettingsError, match=r"teacher\.max_text_tokens is 25; expected at most 24"):
        teacher(max_text_tokens=25)


def test_preprocessing_travels_to_other_processes() -> None:
    """It pickles, and makes the same pixels there."""
    picture = pictures()[1]
    assert torch.equal(pickle.loads(pickle.dumps(FLOAT32.preprocess))(picture), FLOAT32.preprocess(picture))


def save(folder: Path, model: torch.nn.Module, **parts: object) -> Path:
    """A folder as `save_pretrained` writes it; a part that is None is left out."""
    for part in {"model": model, "tokenizer": word_tokenizer(WORDS, 24), "processor": processor(), **parts}.values():
        if part is not None:
            part.save_pretrained(folder)
    return folder


def test_a_saved_folder_loads_and_scores_alike(tmp_path: Path) -> None:
    """What transformers saved scores within 1e-6: where weights lie in memory may move the last bits."""
    loaded = ViltTeacher.load(save(tmp_path, random_model(0)), CPU, torch.float32)
    scores = loaded.score(seen(loaded, pictures())[1], loaded.encode_texts(CAPTIONS))
    torch.testing.assert_close(scores, FLOAT32.score(IMAGES[1], FLOAT32.encode_texts(CAPTIONS)), rtol=0, atol=1e-6)


def test_facts_need_no_weights(tmp_path: Path) -> None:
    """The maximum length resolves to what it means, so that a default spelled out is the same teacher."""
    save(tmp_path, random_model(0))
    (tmp_path / "model.safetensors").unlink()
    plain = {"score": "match_logit", "max_text_tokens": 24}
    assert ViltTeacher.facts(tmp_path) == plain
    assert ViltTeacher.facts(tmp_path, max_text_tokens=24) == plain
    assert ViltTeacher.facts(tmp_path, max_text_tokens=9) == {"score": "match_logit", "max_text_tokens": 9}


@pytest.mark.parametrize(
    ("part", "message"),
    [("tokenizer", "no tokenizer in it; expected one of tokenizer.json"), ("processor", "no image processor in it")],
)
def test_a_part_that_is_missing_is_named(tmp_path: Path, part: str, message: str) -> None:
    """One line instead of a silent default."""
    with pytest.raises(ModelError, match=message):
        ViltTeacher.load(save(tmp_path, random_model(0), **{part: None}), CPU, torch.float32)


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    """A checkpoint without the retrieval head is refused, as is a folder without weights."""
    model = random_model(0)
    del model.rank_output
    with pytest.raises(ModelError, match=r"2 weights are missing \(first: rank_output.bias\)"):
        ViltTeacher.load(save(tmp_path, model), CPU, torch.float32)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        ViltTeacher.load(tmp_path, CPU, torch.float32)
