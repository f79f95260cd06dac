"""What watches a training: evaluation, its verdicts, gradients, targets, pace and the note; each against a slow reference."""

import dataclasses
import io
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

import cprd_pipeline.progress as progress
from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.distillation.batches import PairSampler, PositivePairs
from cprd_pipeline.distillation.checkpoints import Checkpoints
from cprd_pipeline.distillation.collapse import TeacherTargets, measure_targets, targets_of_training
from cprd_pipeline.distillation.evaluation import Evaluator, best_evaluation, out_of_patience
from cprd_pipeline.distillation.gradients import gradient_cosine
from cprd_pipeline.distillation.knowledge import TeacherKnowledge, open_rankings
from cprd_pipeline.distillation.listing import Listing
from cprd_pipeline.distillation.losses.lists import TeacherLists
from cprd_pipeline.distillation.meeting import Meetings
from cprd_pipeline.distillation.note import Losses, training_note
from cprd_pipeline.distillation.pace import Pace
from cprd_pipeline.distillation.pixels import PixelSource
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.watched import batch_rows
from cprd_pipeline.errors import CorpusError, ModelError, StoreError
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.models.students import initial_student
from tests.distillation.conftest import every_pair_rankings, write_rankings

VALUES = st.lists(st.integers(0, 6).map(float), max_size=12)


@pytest.fixture
def student() -> DualEncoder:
    """The demo's student with fresh weights."""
    found = initial_student("scenes", 0, torch.device("cpu"), torch.float32)
    found.model.eval()
    return found


def held_out(corpus: Corpus) -> Split:
    """Rows of the last eight images, and of one caption that belongs to none of them."""
    images, captions = np.arange(16, 24), np.concatenate([[0], np.arange(32, 48)])
    inside = np.isin(corpus.positives[:, 0], images) & np.isin(corpus.positives[:, 1], captions)
    return Split("val", images, captions, corpus.positives[inside])


def pixels_of(corpus: Corpus, student: DualEncoder, rows: Any, cache_gb: float) -> PixelSource:
    with ImageReader(corpus, 0, student.preprocess) as reader:
        source = PixelSource(reader, cache_gb)
        source.prepare(corpus, rows)
    return source


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_evaluation_counts_what_sorting_all_similarities_counts(corpus: Corpus, student: DualEncoder, cache_gb: float) -> None:
    """Recalls both ways from the full matrix, item by item; the caption without an image asks nothing."""
    split = held_out(corpus)
    evaluator = Evaluator(corpus, split, batch_size=3)
    found = evaluator.measure(student, pixels_of(corpus, student, evaluator.image_rows, cache_gb))
    with ImageReader(corpus, 0) as reader, torch.no_grad():
        images = student.embed_images(student.pixels([reader.read(int(row)) for row in split.images]))
        captions = student.embed_captions([corpus.texts[row] for row in split.captions])
    similarities = (images @ captions.T).numpy()
    right = {(int(i), int(c)) for i, c in split.positives}
    ranks: dict[str, list[int]] = {"i2t": [], "t2i": []}
    for direction, queries, items in (("i2t", split.images, split.captions), ("t2i", split.captions, split.images)):
        table = similarities if direction == "i2t" else similarities.T
        for query, row in zip(queries, table, strict=True):
            order = [items[place] for place in np.argsort(-row, kind="stable")]
            pairs = [(query, item) if direction == "i2t" else (item, query) for item in order]
            hits = [place for place, pair in enumerate(pairs, start=1) if (int(pair[0]), int(pair[1])) in right]
            ranks[direction] += hits[:1]
    expected = {f"eval_{d}_r{k}": 100 * float(np.mean([rank <= k for rank in ranks[d]])) for d in ranks for k in (1, 5, 10)}
    assert len(ranks["t2i"]) == 16
    assert found == pytest.approx(expected | {"eval_rsum": sum(expected.values())})


def test_a_split_without_pairs_is_refused(corpus: Corpus) -> None:
    """There would be nothing to count."""
    bare = dataclasses.replace(held_out(corpus), positives=np.empty((0, 2), dtype=np.int64))
    with pytest.raises(CorpusError, match=r"split val: no image has a caption in it.*choose another eval_split"):
        Evaluator(corpus, bare, 8)


def test_a_student_that_is_not_finite_is_refused(corpus: Corpus, student: DualEncoder) -> None:
    """An average may break when the weights overflow after a finite loss."""
    for parameter in student.model.parameters():
        parameter.data.fill_(float("nan"))
    evaluator = Evaluator(corpus, held_out(corpus), 8)
    with pytest.raises(ModelError, match="embeds something as NaN or infinity"):
        evaluator.measure(student, pixels_of(corpus, student, evaluator.image_rows, 1.0))


@given(VALUES, st.integers(1, 4))
@settings(deadline=None)
def test_patience_is_counted_as_one_would_by_hand(values: list[float], patience: int) -> None:
    """Walking along the values: each that is not above all before it costs one."""
    best, best_place, left, ended = -math.inf, -1, patience, False
    for place, value in enumerate(values):
        left = patience if value > best else left - 1
        if value > best:
            best, best_place = value, place
        ended = left <= 0
    assert out_of_patience(values, patience) == ended
    assert not out_of_patience(values, None)
    if values:
        assert best_evaluation(values) == best_place


def test_a_cosine_is_that_of_two_backward_passes_by_hand() -> None:
    """Value as from two backward passes; a loss that misses a weight has no gradient there."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 3).double()
    alone = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    inputs = torch.randn(7, 5, dtype=torch.float64)
    parameters = [*layer.parameters(), alone]

    def losses() -> tuple[torch.Tensor, torch.Tensor]:
        outputs = layer(inputs)
        return outputs.square().mean() + alone.square().sum(), outputs.exp().mean()

    def flat(loss: torch.Tensor) -> torch.Tensor:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        loss.backward()  # type: ignore[no-untyped-call]
        return torch.cat([parameter.grad.ravel().clone() for parameter in parameters if parameter.grad is not None])

    expected = torch.nn.functional.cosine_similarity(flat(losses()[0]), flat(losses()[1]), dim=0)
    for parameter in parameters:
        parameter.grad = None
    first, second = (torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses())
    assert second[-1] is None
    assert gradient_cosine(first, second) == pytest.approx(float(expected), abs=1e-12)
    assert gradient_cosine(first, [-3 * one for one in first]) == pytest.approx(-1.0)
    assert gradient_cosine(first, [0 * one for one in first]) is None
    assert gradient_cosine(first, [torch.inf * one for one in first]) is None
    assert gradient_cosine(first, [None] * len(parameters)) is None


def lists_of(scores: list[list[float]], listed: list[list[bool]]) -> TeacherLists:
    mask = torch.tensor(listed)
    return TeacherLists(torch.tensor(scores), mask, mask, ~mask)


def test_targets_are_measured_list_by_list() -> None:
    """Entropy and top share by hand; a list of one item and an empty one do not count."""
    scores = [[3.0, 1.0, 2.0], [0.0, 0.0, 9.0], [5.0, 1.0, 1.0], [1.0, 2.0, 3.0]]
    listed = [[True, True, True], [True, True, False], [True, False, False], [False, False, False]]
    weights = [[math.exp(s / 2) for s, m in zip(row, marks, strict=True) if m] for row, marks in zip(scores, listed, strict=True)]
    shares = [[w / sum(row) for w in row] for row in weights if len(row) >= 2]
    entropy = [-sum(p * math.log(p) for p in row) / math.log(len(row)) for row in shares]
    found = measure_targets([lists_of(scores, listed)], temperature=2.0)
    assert found is not None
    assert found.entropy_share == pytest.approx(sum(entropy) / 2, rel=1e-6)
    assert found.top_share == pytest.approx((max(shares[0]) + 0.5) / 2, rel=1e-6)
    assert measure_targets([lists_of(scores[2:], listed[2:])], 2.0) is None


def test_collapse_is_a_matter_of_either_bound() -> None:
    """Nearly no entropy, or nearly all for one item."""
    assert TeacherTargets(0.01, 0.9).collapsed
    assert TeacherTargets(0.3, 0.995).collapsed
    assert not TeacherTargets(0.05, 0.98).collapsed


@pytest.mark.parametrize(
    ("changes", "collapsed"),
    [
        ({"objective": "cprd"}, False),
        ({"objective": "cprd", "cprd": {"teacher_temperature": 1e-3}}, True),
        ({"objective": "cprd", "cprd": {"teacher_temperature": 1e-3, "weights": "hard"}}, None),
        ({"objective": "kl"}, False),
        ({"objective": "kl", "kl": {"teacher_temperature": 1e-3}}, True),
        ({"objective": "kl", "kl": {"teacher_temperature": 1e-3, "standardise": True}}, True),
        ({"objective": "kl", "kl": {"standardise": True, "teacher_temperature": 1.0}}, False),
        ({"objective": "listnet", "listnet": {"teacher_temperature": 1e-3}}, True),
        ({"objective": "listmle"}, None),
        ({"objective": "margin_mse"}, None),
    ],
)
def test_only_a_softmax_of_the_teacher_can_collapse(
    corpus: Corpus, tmp_path: Path, changes: dict[str, Any], collapsed: bool | None
) -> None:
    """The verdict follows the objective's own temperature; objectives that read the order alone have none."""
    write_rankings(tmp_path / "rankings", every_pair_rankings(corpus, 12), corpus)
    few = {"batch_size": 8, "steps": 4, "warmup_steps": 0, "distillation_from_step": 0}
    chosen = DistillSettings.model_validate({"rankings": [tmp_path / "rankings"], **few, **changes})
    knowledge = TeacherKnowledge.load(open_rankings(chosen.rankings), corpus)
    split = corpus.split("train")
    listing = Listing(chosen, knowledge, PositivePairs(split, len(corpus.captions)))
    found = targets_of_training(chosen, Meetings(PairSampler(split, 8, 0)), listing)
    assert (None if found is None else found.collapsed) == collapsed


def test_pace_tells_waiting_from_work() -> None:
    """Pictures that take twice as long as the step: about two thirds waiting; batches pass unchanged."""

    def slow() -> Iterator[int]:
        for number in range(4):
            time.sleep(0.02)
            yield number

    pace = Pace()
    assert pace.pairs_per_s is None
    assert pace.waiting_share is None
    seen = []
    for number in pace.measure(slow(), pairs=8):
        seen.append(number)
        time.sleep(0.01)
    assert seen == [0, 1, 2, 3]
    assert pace.pairs == 32
    assert pace.waiting_s >= 4 * 0.02
    assert pace.training_s >= pace.waiting_s + 4 * 0.01
    assert pace.pairs_per_s == pytest.approx(32 / pace.training_s)
    assert pace.waiting_share == pytest.approx(pace.waiting_s / pace.training_s)


@given(st.floats(0, 999), st.floats(0, 999), st.floats(1e-9, 9.9), st.none() | st.floats(0, 1), st.none() | st.floats(0, 600))
@settings(deadline=None)
def test_the_note_is_short(contrastive: float, distillation: float, rate: float, share: float | None, rsum: float | None) -> None:
    """The line's other columns leave 32 characters."""
    assert len(training_note(Losses(0, contrastive, distillation), rate, share, rsum)) <= 32


def test_the_line_of_a_training_has_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long training of large batches, and the longest note."""
    shown = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=shown, width=80, force_terminal=True, color_system=None))
    with progress.progress_bar("steps", 1_234_567, "pairs", 987_654, each=1024) as bar:
        bar.advance(10_000, training_note(Losses(0, 12.3, 12.3), 2e-5, 1.0, 600.0))
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue()).replace("\r", "\n").split("\n")
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert [line.rstrip() for line in lines if line.strip()][-1].endswith("12.3+12.3 lr2.0e-5 100%wait R600")


def test_the_note_reads_well() -> None:
    """What is not known yet is left out."""
    assert training_note(Losses(3, 1.234, 0.5), 2e-3, 0.031, 311.6) == "1.23+0.50 lr2.0e-3 3%wait R312"
    assert training_note(Losses(3, 12.34, 123.4), 1.5e-10, None, None) == "12.3+123 lr1.5e-10"


def test_the_table_says_what_batches_are_made_of() -> None:
    """Neighbours with what they reach, unpaired queries with what was left out; nothing of plain batches."""
    neighbours = {"group_size": 8, "known_share": 0.035, "random_known_share": 0.002, "reached": False}
    unpaired = {"queries_of_a_batch": 58, "images": 5900, "captions": 9000, "without_candidates": 0, "below_floor": 1100}
    assert batch_rows({"pairs_of_a_batch": 6}) == []
    assert batch_rows({"neighbours": neighbours, "unpaired": unpaired}) == [
        (
            "groups of 8 neighbours",
            "3.5% of a batch's pairs known, 0.2% at random; no group size reaches what known_share asks for",
        ),
        ("unpaired queries", "58 of a batch, from 5,900 images and 9,000 captions; 1,100 have no partner above the floor"),
    ]
    assert "no group size" not in batch_rows({"neighbours": neighbours | {"reached": True}})[0][1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": "best"}, "keep best needs evaluations"),
        ({"patience": 2}, "patience counts evaluations"),
        ({"objective": "itc", "rankings": (), "cosine_steps": 5}, "objective itc has one loss part"),
    ],
)
def test_watching_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    """Settings that would have no effect."""
    with pytest.raises(ValidationError, match=message):
        DistillSettings.model_validate({"rankings": ["r"], **changes})


def test_settings_that_only_watch_leave_the_students_identity_alone() -> None:
    """Switched off they are not named; switched on they are, because the log and the choice depend on them."""
    names = {"eval_steps", "eval_split", "eval_metric", "keep", "patience", "cosine_steps"}
    off = DistillSettings.model_validate({"rankings": ["r"], "eval_split": "other", "eval_metric": "i2t_r1"})
    assert not names & set(off.shaping())
    on = DistillSettings.model_validate({"rankings": ["r"], "eval_steps": 5, "cosine_steps": 5})
    assert names & set(on.shaping()) == names - {"patience"}


def test_the_best_weights_of_every_kept_checkpoint_stay(tmp_path: Path) -> None:
    """The second newest checkpoint, should the newest be deleted, finds what was best at its time."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 10):
        if step in (1, 3, 8):
            checkpoints.save_best(step, {"w": torch.tensor(float(step))})
        if step % 2 == 0:
            checkpoints.save(step, {"log": []})
    assert sorted(path.name for path in tmp_path.glob("best-*")) == ["best-000000003.pt", "best-000000008.pt"]
    assert checkpoints.best(3)["w"] == 3.0
    checkpoints.forget_best_after(6)
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-000000003.pt"]
    with pytest.raises(StoreError, match=r"best-000000008\.pt: not a checkpoint that can be read.*training then begins anew"):
        checkpoints.best(8)
