"""What BLIP learns from: its losses against plain calls of transformers, and training's view of a pair against scoring's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional
from transformers import BlipForImageTextRetrieval, CLIPConfig

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.batches import BatchRows, PairSampler, PositivePairs
from cprd_pipeline.distillation.blip_recipe import BlipRecipe, blip_identity
from cprd_pipeline.distillation.teacher_evaluation import evaluate_teacher
from cprd_pipeline.distillation.teacher_recipe import annotated, draw_pairs
from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings
from cprd_pipeline.errors import ModelError, SettingsError
from cprd_pipeline.models.blip import BlipTeacher
from cprd_pipeline.models.captions import tokenize
from cprd_pipeline.models.preprocessing import stacked
from tests.distillation.coloured_squares import coloured_squares, tiny_blip

CPU = torch.device("cpu")
SIZE = 6


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Sixteen pictures, two of each colour."""
    return coloured_squares(tmp_path_factory.mktemp("squares") / "corpus", 16, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, squares: Corpus) -> Path:
    """A tiny random BLIP."""
    return tiny_blip(tmp_path_factory.mktemp("blip"), squares.texts)


def recipe(corpus: Corpus, folder: Path, **values: Any) -> BlipRecipe:
    """The recipe for the split `train`, in float32 unless `blip` says otherwise."""
    settings = TrainTeacherSettings.model_validate({"teacher": str(folder), "batch_size": SIZE, "negatives": 2} | values)
    return BlipRecipe(settings, corpus, corpus.split("train"), CPU, "identity")


def batch(corpus: Corpus, made: BlipRecipe) -> tuple[BatchRows, torch.Tensor]:
    """Rows and pictures of a batch in which a colour comes up twice, so that not all others are negatives."""
    sampler = PairSampler(corpus.split("train"), SIZE, 0)
    positives = PositivePairs(corpus.split("train"), len(corpus.captions))
    rows = next(rows for rows in map(sampler.batch, range(50)) if positives.among(rows).sum() > SIZE)
    with ImageReader(corpus) as reader:
        return rows, stacked([made.preprocess(reader.read(int(row))) for row in rows.images])


@pytest.mark.parametrize("first_token", ["cls", "enc"])
def test_training_and_scoring_see_the_same(squares: Corpus, folder: Path, first_token: str) -> None:
    """Margins of all pairs and cosines of all vectors equal those of the teacher that scores, within 1e-5, with [ENC] or [CLS].

    In token 0 the matching head reads what is chosen, the contrastive head [CLS] always; the other choice moves the margins.
    """
    made = recipe(squares, folder, blip={"first_token": first_token})
    blip, texts = made.module.eval(), squares.texts[:7]
    tokens = tokenize(word := made._parts.tokenizer, texts, 48)
    padded = word.pad({"input_ids": [text.ids.tolist() for text in tokens]}, return_tensors="pt")
    ids, mask = padded["input_ids"], padded["attention_mask"].bool()
    assert not mask.all(), "no caption is padded"
    with ImageReader(squares) as reader, torch.inference_mode():
        pictures = [reader.read(row) for row in range(5)]
        image = blip.see(stacked([*map(made.preprocess, pictures)]))
        every = [torch.arange(5).repeat_interleave(7), torch.arange(7).repeat(5)]
        margins = blip.match(image, every[0], ids[every[1]], mask[every[1]]).view(5, 7)
        cosines = blip.contrast(image, ids, mask) * blip.temperature
    found = {}
    for token in ("cls", "enc"):
        teacher = BlipTeacher.load(folder, CPU, torch.float32, first_token=token)
        seen = [teacher.preprocess(picture) for picture in pictures]
        found[token] = torch.stack([teacher.score(one, teacher.encode_texts(texts)) for one in teacher.encode_images(seen)])
        torch.testing.assert_close(cosines, teacher.embed_images(seen) @ teacher.embed_texts(texts).T, rtol=0, atol=1e-5)
    torch.testing.assert_close(margins, found.pop(first_token), rtol=0, atol=1e-5)
    assert (margins - next(iter(found.values()))).abs().max() > 1e-2


def test_losses_equal_plain_calls_pair_by_pair(squares: Corpus, folder: Path) -> None:
    """Cross-entropies over transformers' own outputs: of each row and column without other positives, and of the two logits."""
    made = recipe(squares, folder, contrastive_weight=0.5, matching_weight=2.0)
    made.module.eval()
    rows, pixels = batch(squares, made)
    found = made.losses(3, rows, pixels)
    plain = BlipForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32).eval()
    texts = [squares.texts[row] for row in rows.captions]
    ids = [made._parts.tokenizer(text, return_tensors="pt")["input_ids"] for text in texts]

    def call(image: int, caption: int, itm: bool) -> torch.Tensor:
        with torch.no_grad():
            return plain(ids[caption], pixels[image : image + 1], use_itm_head=itm).itm_score[0]

    excluded = annotated(PositivePairs(squares.split("train"), len(squares.captions)), rows, CPU)
    positive = excluded.numpy()
    logits = torch.stack([torch.cat([call(i, c, False) for c in range(SIZE)]) for i in range(SIZE)]) / 0.07
    terms = []
    for own in range(SIZE):
        for line, others in ((logits[own], positive[own]), (logits[:, own], positive[:, own])):
            kept = [item for item in range(SIZE) if item == own or not others[item]]
            terms.append(-functional.log_softmax(line[kept], 0)[kept.index(own)])
    contrastive = torch.stack(terms).mean()
    pairs = draw_pairs(made._settings, 3, logits, excluded)
    judged = [(i, c, int(n < SIZE)) for n, (i, c) in enumerate(zip(pairs.images.tolist(), pairs.captions.tolist(), strict=True))]
    judged = [(i, c, own) for i, c, own in judged if own or not positive[i, c]]
    assert SIZE < len(judged) <= 5 * SIZE
    matching = functional.cross_entropy(torch.stack([call(i, c, True) for i, c, _ in judged]), torch.tensor([j[2] for j in judged]))
    assert found["contrastive"].item() == pytest.approx(contrastive.item(), abs=2e-4)
    assert found["matching"].item() == pytest.approx(matching.item(), abs=1e-5)
    assert found["total"].item() == pytest.approx(0.5 * contrastive.item() + 2.0 * matching.item(), abs=2e-4)
    assert found["temperature"].item() == pytest.approx(0.07)


def test_every_weight_learns_and_norms_biases_and_temperature_do_not_decay(squares: Corpus, folder: Path) -> None:
    """Each parameter is in one group and has a gradient; what decays has two dimensions or more."""
    made = recipe(squares, folder, weight_decay=0.3)
    made.losses(0, *batch(squares, made))["total"].backward()
    decayed, spared = made.parameter_groups()
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    together = [id(parameter) for parameter in decayed["params"] + spared["params"]]
    assert sorted(together) == sorted(id(parameter) for parameter in made.module.parameters())
    spared_ids = {id(parameter) for parameter in spared["params"]}
    names = {name for name, parameter in made.module.named_parameters() if id(parameter) in spared_ids}
    assert "temperature" in names
    assert all(name == "temperature" or name.endswith("bias") or "norm" in name.lower() for name in names)
    assert not [name for name, parameter in made.module.named_parameters() if not parameter.grad.abs().sum() > 0]


def test_dropout_is_on_and_layers_computed_twice_drop_the_same(squares: Corpus, tmp_path: Path) -> None:
    """In training two draws differ and one seed repeats; gradient checkpointing changes no bit of a gradient.

    It is at work: layers run a second time in the backward pass.
    """
    folder = tiny_blip(tmp_path, squares.texts, dropout=0.2)
    gradients, runs = {}, {}
    for name, checkpointing, seed in (("kept", False, 1), ("again", False, 1), ("twice", True, 1), ("other", False, 2)):
        made = recipe(squares, folder, blip={"gradient_checkpointing": checkpointing})
        made.module.train()
        counted: list[int] = []
        for layer in (made.module.model.vision_model.encoder.layers[0].mlp, made.module.model.text_encoder.encoder.layer[0].output):
            layer.register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        torch.manual_seed(seed)
        made.losses(0, *batch(squares, made))["total"].backward()
        gradients[name] = torch.cat([parameter.grad.flatten() for parameter in made.module.parameters()])
        runs[name] = len(counted)
    assert torch.equal(gradients["kept"], gradients["again"])
    assert torch.equal(gradients["kept"], gradients["twice"])
    assert not torch.equal(gradients["kept"], gradients["other"])
    assert (runs["kept"], runs["twice"]) == (3, 6)


def test_bfloat16_computes_the_towers_only(squares: Corpus, folder: Path) -> None:
    """Both towers' layers give bfloat16; logits and losses are float32 and near those of float32, gradients float32."""
    low, full = (recipe(squares, folder, blip={"precision": precision}) for precision in ("bfloat16", "float32"))
    model, given = low.module.model, set()
    for layer in (model.vision_model.encoder.layers[0].self_attn.qkv, model.text_encoder.encoder.layer[0].crossattention.self.key):
        layer.register_forward_hook(lambda _, __, output: given.add(output.dtype))
    found, exact = (made.losses(0, *batch(squares, made)) for made in (low, full))
    assert given == {torch.bfloat16}
    assert {loss.dtype for loss in found.values()} == {torch.float32}
    assert found["contrastive"].item() != exact["contrastive"].item()
    assert found["contrastive"].item() == pytest.approx(exact["contrastive"].item(), rel=0.05)
    found["total"].backward()
    assert {parameter.grad.dtype for parameter in low.module.parameters()} == {torch.float32}


def test_the_temperature_stays_in_its_bounds_and_out_of_the_folder(squares: Corpus, folder: Path, tmp_path: Path) -> None:
    """It is clamped in place, part of the state that a checkpoint keeps, and no weight of the saved model."""
    made = recipe(squares, folder)
    for value, kept in ((7.0, 0.5), (-1.0, 0.001), (0.2, 0.2)):
        with torch.no_grad():
            made.module.temperature.fill_(value)
        made.bound()
        assert made.module.temperature.item() == pytest.approx(kept)
    assert made.module.state_dict()["temperature"].item() == pytest.approx(0.2)
    assert "learned, 0.2000 at the end" in made.card("digest")
    made.save(tmp_path / "saved")
    _, notes = BlipForImageTextRetrieval.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not notes["unexpected_keys"]
    assert not notes["missing_keys"]


def test_evaluation_equals_ranking_by_plain_calls(squares: Corpus, folder: Path) -> None:
    """RSUM of the contrastive head, RSUM of lists reordered by the margin, and matching accuracy, over full score matrices."""
    teacher, split, depth = BlipTeacher.load(folder, CPU, torch.float32), squares.split("train"), 4
    with ImageReader(squares, prepare=teacher.preprocess) as reader:
        quality = evaluate_teacher(teacher, teacher, reader, squares, split, depth, seed=0)
        seen = torch.stack(list(reader.prepared(split.images)))
    plain = BlipForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = [teacher.tokenizer(squares.texts[row], return_tensors="pt")["input_ids"] for row in split.captions]
    with torch.no_grad():
        cosines = torch.cat([plain(ids, seen, use_itm_head=False).itm_score for ids in tokens], 1).double().numpy()
        both = [plain(ids.expand(len(seen), -1), seen).itm_score for ids in tokens]
    margins = torch.stack([logits[:, 1] - logits[:, 0] for logits in both], 1).numpy()
    right = np.zeros(cosines.shape, dtype=bool)
    right[np.searchsorted(split.images, split.positives[:, 0]), np.searchsorted(split.captions, split.positives[:, 1])] = True
    dual, reranked = 0.0, 0.0
    for s, t, r in ((cosines, margins, right), (cosines.T, margins.T, right.T)):
        ranks = [_ranks(s[query], t[query], r[query], depth) for query in range(len(s))]
        dual += sum(100 * np.mean([rank[0] <= k for rank in ranks]) for k in (1, 5, 10))
        reranked += sum(100 * np.mean([rank[1] <= k for rank in ranks]) for k in (1, 5, 10))
    assert quality.dual_rsum == pytest.approx(dual)
    assert quality.reranked_rsum == pytest.approx(reranked)
    assert dual != reranked
    assert 0 < quality.matching_accuracy < 100


def _ranks(similarities: np.ndarray, scores: np.ndarray, right: np.ndarray, depth: int) -> tuple[int, int]:
    """Best positive's rank by similarity, and after the first `depth` are sorted by score; ties go against the positive."""
    order = sorted(range(len(similarities)), key=lambda item: (-round(similarities[item], 5), right[item]))
    head = sorted(order[:depth], key=lambda item: (-round(float(scores[item]), 4), right[item]))
    return tuple(1 + next(n for n, item in enumerate(items) if right[item]) for items in (order, head + order[depth:]))


@pytest.mark.parametrize(
    ("blip", "message"),
    [
        ({"first_token": "enc"}, r"blip\.first_token is enc, and this teacher has no \[ENC\]; set it to cls"),
        ({"max_text_tokens": 49}, r"blip\.max_text_tokens is 49; expected at most 48"),
    ],
)
def test_what_the_model_cannot_do_is_named_as_here(squares: Corpus, tmp_path: Path, blip: dict, message: str) -> None:
    """The errors of scoring, with the names that the settings have in this stage."""
    folder = tiny_blip(tmp_path, squares.texts, spare_words=0)
    with pytest.raises(SettingsError, match=message):
        recipe(squares, folder, blip=blip)


def test_another_family_is_refused(tmp_path: Path) -> None:
    """A CLIP has no matching head to train; the message says what has."""
    CLIPConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"type 'clip', which train-teacher cannot train; expected scenes, or a BLIP"):
        blip_identity(str(tmp_path))
    with pytest.raises(ModelError, match="there is no such folder"):
        blip_identity("./nowhere")


def test_the_model_that_training_begins_with_is_not_overwritten() -> None:
    """The same folder under two spellings is one folder."""
    with pytest.raises(ValidationError, match=r"teacher and output are both .*which would be overwritten; name another output"):
        TrainTeacherSettings(teacher="data/blip/../teacher", output=Path("data/teacher"))


def test_each_teacher_is_shaped_by_its_own_settings_only() -> None:
    """What a recipe does not read changes no identity; what only saves memory changes none either."""
    scenes, blip = TrainTeacherSettings(), TrainTeacherSettings(teacher="a/b")
    assert scenes.shaping() == TrainTeacherSettings.model_validate({"blip": {"first_token": "enc"}}).shaping()
    assert scenes.shaping() != TrainTeacherSettings(token_weight=0.5).shaping()
    for values in ({"token_weight": 0.5}, {"listwise_weight": 0.5}, {"blip": {"gradient_checkpointing": True}}):
        assert blip.shaping() == TrainTeacherSettings.model_validate({"teacher": "a/b"} | values).shaping()
    for values in ({"blip": {"first_token": "enc"}}, {"blip": {"max_text_tokens": 35}}, {"blip": {"precision": "float32"}}):
        assert blip.shaping() != TrainTeacherSettings.model_validate({"teacher": "a/b"} | values).shaping()
