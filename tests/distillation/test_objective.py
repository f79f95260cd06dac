"""The whole loss of a batch: each objective by its settings, both directions, and numbers that stay float32."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cprd_pipeline.corpus.reader import Split
from cprd_pipeline.distillation.batches import BatchRows, PositivePairs
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.listing import BatchLists, Listing, teacher_lists
from cprd_pipeline.distillation.losses.cprd import cprd_loss
from cprd_pipeline.distillation.losses.kl import kl_loss
from cprd_pipeline.distillation.losses.listmle import listmle_loss
from cprd_pipeline.distillation.losses.listnet import listnet_loss
from cprd_pipeline.distillation.losses.lists import TeacherLists
from cprd_pipeline.distillation.losses.margin_mse import margin_mse_loss
from cprd_pipeline.distillation.losses.ranknet import ranknet_loss
from cprd_pipeline.distillation.losses.shuffle import shuffle_keys, shuffle_teacher
from cprd_pipeline.distillation.losses.standardise import standardise_both
from cprd_pipeline.distillation.meeting import in_batch
from cprd_pipeline.distillation.objective import LossParts, Objective, Similarities
from cprd_pipeline.distillation.pair_table import PairTable, PairTableBuilder
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.teacher_loss import ListRules
from tests.distillation.loss_cases import random_similarities

SIZE, SCALE = 8, torch.tensor(20.0, dtype=torch.float64)
RIVALS = ["cprd", "kl", "margin_mse", "listnet", "listmle", "ranknet"]


def table(flagged: bool = False) -> PairTable:
    """Two thirds of the pairs of eight images and eight captions, the own ones among them."""
    random = np.random.default_rng(0)
    known = (random.random((SIZE, SIZE)) < 0.67) | np.eye(SIZE, dtype=np.bool_)
    images, captions = np.nonzero(known)
    scores = random.normal(0, 3, len(images)).astype(np.float32)
    building = PairTableBuilder(SIZE, SIZE)
    building.count(images)
    building.place(images, captions, scores, np.full(len(images), flagged))
    return building.finish()


def knowledge(flagged: bool = False) -> TeacherKnowledge:
    """All that the teacher said."""
    cutoffs, rows = np.zeros(SIZE, dtype=np.float32), np.arange(SIZE)
    return TeacherKnowledge(table(flagged), None, cutoffs, cutoffs, rows, rows, "teacher")


ROWS = BatchRows.of_pairs(np.array([3, 0, 5, 6, 1]), np.array([3, 0, 5, 6, 1]))
POSITIVE = np.eye(5, dtype=np.bool_)
EVERYTHING = np.arange(SIZE)
POSITIVES = PositivePairs(Split("train", EVERYTHING, EVERYTHING, np.stack([EVERYTHING, EVERYTHING], axis=1)), SIZE)
PAIRED = np.ones(5, dtype=np.bool_)


def settings_of(**values: Any) -> DistillSettings:
    rankings = () if values.get("objective") == "itc" else ("data/rankings/1",)
    return DistillSettings.model_validate({"rankings": rankings, "distillation_from_step": 0, **values})


def loss_of(similarities: torch.Tensor, step: int = 0, bias: torch.Tensor | None = None, **values: Any) -> LossParts:
    settings = settings_of(**values)
    told = None if settings.objective == "itc" else knowledge()
    lists = Listing(settings, told, POSITIVES).of(in_batch(ROWS), step)
    return of_lists(settings, similarities, lists, step, bias)


def of_lists(
    settings: DistillSettings, similarities: torch.Tensor, lists: BatchLists, step: int, bias: torch.Tensor | None = None
) -> LossParts:
    both = Similarities(similarities, similarities.T)
    return Objective(settings)(both, lists, SCALE.to(torch.float32), step, bias)


def lists_of(rules: ListRules) -> tuple[TeacherLists, TeacherLists]:
    told = knowledge()
    known = told.among(ROWS)
    cutoffs = told.image_cutoffs[ROWS.images]
    return (
        teacher_lists(known.i2t, POSITIVE, cutoffs, PAIRED, rules),
        teacher_lists(known.t2i, POSITIVE.T, cutoffs, PAIRED, rules),
    )


COMPOSED: list[tuple[dict[str, Any], ListRules, Any]] = [
    ({"objective": "cprd"}, ListRules("listed", True, "in_batch"), lambda s, x: cprd_loss(s * 20, x, "soft", 4.0)),
    (
        {"objective": "cprd", "cprd": {"weights": "hard", "valid": "rankings", "student_temperature": 0.1}},
        ListRules("rankings", True, "in_batch"),
        lambda s, x: cprd_loss(s * 10, x, "hard", 4.0),
    ),
    ({"objective": "kl"}, ListRules("listed", True, "in_batch"), lambda s, x: kl_loss(s * 20, x, 4.0)),
    (
        {"objective": "kl", "kl": {"student_temperature": 0.5, "easy_negatives": "none", "positive_in_list": False}},
        ListRules("listed", False, "none"),
        lambda s, x: kl_loss(s * 2, x, 4.0),
    ),
    (
        {"objective": "kl", "kl": {"standardise": True, "teacher_temperature": 1.5}},
        ListRules("listed", True, "in_batch"),
        lambda s, x: kl_loss(standardise_both(s * 20, x)[0] / 1.5, standardise_both(s * 20, x)[1], 1.5),
    ),
    ({"objective": "margin_mse"}, ListRules("listed", True, "none"), lambda s, x: margin_mse_loss(s * 20, x, 1.0)),
    (
        {"objective": "margin_mse", "margin_mse": {"standardise": True, "student_temperature": 2.0}},
        ListRules("listed", True, "none"),
        lambda s, x: margin_mse_loss(standardise_both(s * 20, x)[0] / 2, standardise_both(s * 20, x)[1], 1.0),
    ),
    ({"objective": "listnet"}, ListRules("listed", True, "none"), lambda s, x: listnet_loss(s * 20, x, 1.0)),
    (
        {"objective": "listmle", "listmle": {"positive_in_list": False}},
        ListRules("listed", False, "none"),
        lambda s, x: listmle_loss(s * 20, x),
    ),
    (
        {"objective": "ranknet", "ranknet": {"weights": "difference", "student_temperature": 0.25}},
        ListRules("listed", True, "none"),
        lambda s, x: ranknet_loss(s * 4, x, "difference"),
    ),
]


@pytest.mark.parametrize(("values", "rules", "loss"), COMPOSED, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_the_settings_choose_the_loss_its_lists_and_its_temperatures(values: dict[str, Any], rules: ListRules, loss: Any) -> None:
    """Distillation is the mean of the two directions' losses; the total is weighted."""
    similarities = random_similarities(0, 5, 5)
    parts = loss_of(similarities, contrastive_weight=0.5, distillation_weight=3.0, **values)
    i2t, t2i = lists_of(rules)
    expected = (loss(similarities, i2t) + loss(similarities.T, t2i)) / 2
    assert float(expected) > 0
    assert float(parts.distillation) == pytest.approx(float(expected), rel=1e-12)
    assert float(parts.total) == pytest.approx(0.5 * float(parts.contrastive) + 3.0 * float(parts.distillation), rel=1e-12)


@pytest.mark.parametrize("objective", RIVALS)
def test_distillation_begins_at_its_step(objective: str) -> None:
    """Before it the part is 0, from it on it is not."""
    losses = [loss_of(random_similarities(0, 5, 5), step, objective=objective, distillation_from_step=4) for step in (3, 4)]
    assert float(losses[0].distillation) == 0.0
    assert float(losses[1].distillation) > 0.0


@pytest.mark.parametrize("objective", RIVALS)
def test_a_shuffled_teacher_is_another_teacher_each_step(objective: str) -> None:
    """The control changes the distillation alone, differs by step and seed, and is the same when asked again."""
    similarities = random_similarities(1, 5, 5)
    plain = loss_of(similarities, objective=objective)
    again = [loss_of(similarities, step, objective=objective, shuffle_teacher=True) for step in (0, 0, 1)]
    other_seed = loss_of(similarities, objective=objective, shuffle_teacher=True, seed=1)
    assert float(again[0].contrastive) == float(plain.contrastive)
    assert float(again[0].distillation) == float(again[1].distillation)
    assert len({float(p.distillation) for p in (plain, again[0], again[2], other_seed)}) == 4


def test_each_direction_is_dealt_by_seed_step_and_direction() -> None:
    """A query and a candidate that swap roles meet another number."""
    similarities = random_similarities(1, 5, 5)
    parts = loss_of(similarities, step=7, objective="listmle", shuffle_teacher=True, seed=3)
    i2t, t2i = lists_of(ListRules("listed", True, "none"))
    of_images = shuffle_teacher(i2t, shuffle_keys(3, 7, 0, ROWS.images, np.tile(ROWS.captions, (5, 1))))
    of_captions = shuffle_teacher(t2i, shuffle_keys(3, 7, 1, ROWS.captions, np.tile(ROWS.images, (5, 1))))
    expected = (listmle_loss(similarities * 20, of_images) + listmle_loss(similarities.T * 20, of_captions)) / 2
    assert float(parts.distillation) == pytest.approx(float(expected), rel=1e-12)


def test_the_bias_of_the_sigmoid_loss_is_learned_where_there_is_one() -> None:
    """Without a bias of the student the setting is used; with one it gets a gradient."""
    similarities, bias = random_similarities(3, 5, 5), torch.tensor(-4.0, requires_grad=True)
    fixed = loss_of(similarities, objective="itc", contrastive="sigmoid", sigmoid_bias=-4.0)
    learned = loss_of(similarities, bias=bias, objective="itc", contrastive="sigmoid")
    assert float(learned.total.detach()) == pytest.approx(float(fixed.total), rel=1e-12)
    learned.total.backward()
    assert float(bias.grad.abs()) > 0


def test_flagged_pairs_are_no_contrastive_negatives() -> None:
    """A probable false negative is left out by both contrastive losses."""
    similarities = random_similarities(4, 5, 5)
    for contrastive in ("itc", "sigmoid"):
        settings = settings_of(contrastive=contrastive)
        losses = [
            of_lists(settings, similarities, Listing(settings, knowledge(flagged), POSITIVES).of(in_batch(ROWS), 0), 0).contrastive
            for flagged in (False, True)
        ]
        assert float(losses[1]) < float(losses[0])


def test_a_shuffled_teacher_needs_a_teacher() -> None:
    """The contrastive loss alone has none."""
    with pytest.raises(ValidationError, match="objective itc has no teacher whose order shuffle_teacher could destroy"):
        settings_of(objective="itc", shuffle_teacher=True)


def test_smoothed_labels_need_a_softmax() -> None:
    """The sigmoid loss has no target to spread."""
    with pytest.raises(ValidationError, match="label_smoothing spreads the target of contrastive itc"):
        settings_of(objective="itc", contrastive="sigmoid", label_smoothing=0.1)


def test_knobs_that_do_not_take_part_do_not_name_the_student() -> None:
    """Another student is trained only when a knob of its own objective changes."""
    plain = settings_of(objective="listnet")
    for idle in ({"kl": {"standardise": True}}, {"ranknet": {"weights": "difference"}}, {"sigmoid_bias": -3.0}):
        assert settings_of(objective="listnet", **idle).shaping() == plain.shaping()
    for felt in ({"listnet": {"teacher_temperature": 2.0}}, {"shuffle_teacher": True}, {"contrastive": "sigmoid"}):
        assert settings_of(objective="listnet", **felt).shaping() != plain.shaping()
    sigmoid = settings_of(objective="itc", contrastive="sigmoid")
    assert settings_of(objective="itc", contrastive="sigmoid", sigmoid_bias=-3.0).shaping() != sigmoid.shaping()
