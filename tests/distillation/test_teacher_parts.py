"""Parts of the teacher's training: batches by length, negatives, losses, evaluation; each against a slow way of doing it."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.distillation.batches import PairSampler, PositivePairs
from cprd_pipeline.distillation.losses.matching import listwise_loss, matching_loss, sample_negatives
from cprd_pipeline.distillation.teacher_batches import LengthBatches
from cprd_pipeline.distillation.teacher_evaluation import evaluate_teacher
from cprd_pipeline.distillation.teacher_recipe import annotated, draw_pairs
from cprd_pipeline.distillation.teacher_scenes import SceneDual
from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings
from cprd_pipeline.models.scene_teacher import SceneTeacher, build_scene_teacher


def _sampler(images: int, size: int) -> PairSampler:
    rows = np.arange(images, dtype=np.int64)
    return PairSampler(Split("train", rows, rows, np.stack([rows, rows], axis=1)), size, seed=5)


@given(st.integers(1, 6), st.integers(0, 30), st.integers(1, 12))
def test_batches_by_length_are_a_function_of_the_step(window: int, start: int, count: int):
    """Asking for some steps at once, or one at a time as after a resume, gives the same batches."""
    batches = LengthBatches(_sampler(20, 4), np.arange(20) % 7, window)
    together = batches.batches(range(start, start + count))
    single = [batches.batches(range(step, step + 1))[0] for step in range(start, start + count)]
    assert [rows.captions.tolist() for rows in together] == [rows.captions.tolist() for rows in single]


@given(st.integers(1, 6), st.integers(0, 5))
def test_a_window_keeps_its_pairs_and_sorts_them_by_length(window: int, index: int):
    """Regrouping loses and invents no pair, and lengths of different batches of a window do not interleave."""
    sampler, lengths = _sampler(20, 4), (np.arange(20) * 3) % 11
    steps = range(index * window, (index + 1) * window)
    found = LengthBatches(sampler, lengths, window).batches(steps)
    drawn = [sampler.batch(step) for step in steps]
    pairs = [
        sorted(zip(np.concatenate([r.images for r in rows]), np.concatenate([r.captions for r in rows]), strict=True))
        for rows in (found, drawn)
    ]
    assert pairs[0] == pairs[1]
    spans = sorted((lengths[rows.captions].min(), lengths[rows.captions].max()) for rows in found)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_negatives_are_never_annotated_pairs_and_never_twice():
    """Over many draws no excluded pair comes up while others are left, and a query's negatives are distinct."""
    generator = torch.Generator().manual_seed(0)
    excluded = torch.eye(6, dtype=torch.bool) | (torch.arange(6)[:, None] == (torch.arange(6) + 1) % 6)
    logits = torch.where(excluded, 50.0, torch.randn(6, 6, generator=generator))
    for _ in range(200):
        drawn = sample_negatives(logits, excluded, 3, 0.5, generator)
        assert not excluded.gather(1, drawn).any()
        assert all(len(set(row)) == 3 for row in drawn.tolist())


def test_negatives_follow_the_promised_probabilities():
    """Frequencies of single draws equal the mixture of a uniform part and the softmax of the logits."""
    logits, excluded = torch.tensor([[0.0, 2.0, 1.0, 9.0]]), torch.tensor([[False, False, False, True]])
    drawn = sample_negatives(logits.repeat(40_000, 1), excluded.repeat(40_000, 1), 1, 0.25, torch.Generator().manual_seed(0))
    odds = [math.exp(x) for x in (0.0, 2.0, 1.0)]
    expected = [0.75 / 3 + 0.25 * x / sum(odds) for x in odds]
    frequencies = torch.bincount(drawn.flatten(), minlength=4) / 40_000
    assert frequencies.tolist() == pytest.approx([*expected, 0.0], abs=0.01)


def test_a_query_without_negatives_draws_only_excluded_pairs():
    """Such draws exist (a batch of one picture's captions) and are told apart by the mask, not by an error."""
    excluded = torch.ones(3, 3, dtype=torch.bool)
    drawn = sample_negatives(torch.zeros(3, 3), excluded, 1, 0.5, torch.Generator().manual_seed(0))
    assert excluded.gather(1, drawn).all()
    loss = matching_loss(torch.zeros(3), torch.full((3, 1), 7.0), excluded.gather(1, drawn))
    assert loss.item() == pytest.approx(math.log(2))


def test_losses_equal_slow_loops_and_leave_excluded_pairs_alone():
    """Binary and listwise cross-entropy pair by pair; an excluded pair has no gradient."""
    torch.manual_seed(0)
    positive, negative = torch.randn(4, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    excluded = torch.tensor([[False, True, False], [False] * 3, [True] * 3, [False] * 3])
    terms, ranks = [], []
    for q in range(4):
        terms.append(-math.log(1 / (1 + math.exp(-positive[q].item()))))
        others = [negative[q, k].item() for k in range(3) if not excluded[q, k]]
        terms.extend(-math.log(1 - 1 / (1 + math.exp(-x))) for x in others)
        own = math.exp(positive[q].item())
        ranks.append(-math.log(own / (own + sum(math.exp(x) for x in others))))
    matching, listwise = matching_loss(positive, negative, excluded), listwise_loss(positive, negative, excluded)
    assert matching.item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)
    assert listwise.item() == pytest.approx(sum(ranks) / 4, rel=1e-12)
    (matching + listwise).backward()
    assert torch.equal(negative.grad != 0, ~excluded)


@given(st.integers(2, 7), st.integers(1, 2), st.integers(0, 50))
def test_drawn_pairs_are_own_ones_and_each_sides_negatives(size: int, negatives: int, step: int):
    """First the own pairs, then captions for each image, then images for each caption; a hard one is what looks most alike.

    The losses see exactly those pairs, and a step's draw is the same whenever it is made.
    """
    wanted = TrainTeacherSettings(negatives=negatives, hard_share=1.0)
    likeness, excluded = torch.zeros(size, size), torch.eye(size, dtype=torch.bool)
    after, before = torch.arange(size).roll(-1), torch.arange(size).roll(1)
    likeness[torch.arange(size), after] = 80.0
    pairs = draw_pairs(wanted, step, likeness, excluded)
    captions, images = (side[size:].view(2, size, negatives) for side in (pairs.captions, pairs.images))
    assert torch.equal(pairs.captions[:size], torch.arange(size))
    assert torch.equal(pairs.images[:size], torch.arange(size))
    assert torch.equal(captions[0, :, 0], after)
    assert torch.equal(images[1, :, 0], before)
    assert torch.equal(images[0], torch.arange(size)[:, None].expand(-1, negatives))
    assert torch.equal(captions[1], torch.arange(size)[:, None].expand(-1, negatives))
    assert torch.equal(pairs.excluded, excluded[images, captions])
    again = draw_pairs(wanted, step, likeness, excluded)
    assert all(torch.equal(a, b) for a, b in zip(pairs, again, strict=True))
    logits = torch.randn(len(pairs.captions), generator=torch.Generator().manual_seed(step))
    own, drawn = logits[:size], logits[size:][~pairs.excluded.flatten()]
    terms = torch.cat([torch.nn.functional.softplus(-own), torch.nn.functional.softplus(drawn)])
    torch.testing.assert_close(pairs.matching(logits), terms.mean())


def test_annotated_pairs_lie_row_by_row(corpus: Corpus):
    """Draws follow the layout in memory, so that it must not change with the look-up; own pairs and equal texts are marked."""
    split = corpus.split("train")
    rows = PairSampler(split, 24, 0).batch(0)
    found = annotated(PositivePairs(split, len(corpus.captions)), rows, torch.device("cpu"))
    assert found.is_contiguous()
    known = {tuple(pair) for pair in split.positives.tolist()}
    expected = [[(image, caption) in known for caption in rows.captions.tolist()] for image in rows.images.tolist()]
    assert found.tolist() == expected


def test_evaluation_equals_ranking_every_pair_by_hand(corpus: Corpus):
    """RSUM of the dual branch and of the reranked heads equal counts over full score matrices."""
    teacher = build_scene_teacher(corpus.texts, 0, torch.device("cpu"), torch.float32)
    split, depth = corpus.split("train"), 5
    with ImageReader(corpus) as reader:
        quality = evaluate_teacher(teacher, SceneDual(teacher), reader, corpus, split, depth, seed=0)
        pictures = [reader.read(row) for row in range(len(corpus.images))]
    similarities, scores = _all_pairs(teacher, pictures, corpus.texts)
    right = np.zeros(similarities.shape, dtype=bool)
    right[corpus.positives[:, 0], corpus.positives[:, 1]] = True
    dual, reranked = 0.0, 0.0
    for s, t, r in ((similarities, scores, right), (similarities.T, scores.T, right.T)):
        ranks = [_rank(s[q], t[q], r[q], depth) for q in range(len(s))]
        dual += sum(100 * np.mean([rank[0] <= k for rank in ranks]) for k in (1, 5, 10))
        reranked += sum(100 * np.mean([rank[1] <= k for rank in ranks]) for k in (1, 5, 10))
    assert quality.dual_rsum == pytest.approx(dual)
    assert quality.reranked_rsum == pytest.approx(reranked)
    assert dual != reranked
    assert 0 <= quality.matching_accuracy <= 100


def _all_pairs(teacher: SceneTeacher, pictures: list, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    images, captions = teacher.encode_images(pictures), teacher.encode_texts(texts)
    with torch.inference_mode():
        first = torch.stack([caption.states[:1] for caption in captions])
        similarities = teacher.model.embed_images(torch.stack(images)) @ teacher.model.embed_texts(first).T
    return similarities.double().numpy(), np.stack([teacher.score(image, captions).numpy() for image in images])


def _rank(similarities: np.ndarray, scores: np.ndarray, right: np.ndarray, depth: int) -> tuple[int, int]:
    """Best positive's rank by similarity, and after the first `depth` are sorted by score; ties go against the positive."""
    order = sorted(range(len(similarities)), key=lambda item: (-round(similarities[item], 6), right[item]))
    head = sorted(order[:depth], key=lambda item: (-round(float(scores[item]), 5), right[item]))

    def best(items: list[int]) -> int:
        return 1 + next(place for place, item in enumerate(items) if right[item])

    return best(order), best(head + order[depth:])
