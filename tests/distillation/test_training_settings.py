"""Settings under which nothing would be trained, or something that cannot be: refused before the corpus is read."""

from typing import Any

import pytest
from pydantic import ValidationError

from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings

TEACHER_WEIGHTS = ("contrastive_weight", "token_weight", "matching_weight", "listwise_weight")


def student(**values: Any) -> DistillSettings:
    """Settings of `distill`; `objective` itc takes no rankings."""
    rankings = {} if values.get("objective") == "itc" else {"rankings": ["r"]}
    return DistillSettings.model_validate(rankings | values)


def teacher(**values: Any) -> TrainTeacherSettings:
    return TrainTeacherSettings.model_validate(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": "itc", "contrastive_weight": 0}, "contrastive_weight is 0 and objective itc has no other loss"),
        (
            {"contrastive_weight": 0, "distillation_weight": 0},
            "distillation_weight are both 0, so that nothing would be learned; raise one",
        ),
    ],
)
def test_a_student_that_would_learn_nothing_is_refused(values: dict[str, Any], message: str) -> None:
    """Weight decay alone would move it. One loss is enough."""
    with pytest.raises(ValidationError, match=message):
        student(**values)
    assert student(contrastive_weight=0).distillation_weight > 0
    assert student(distillation_weight=0).contrastive_weight > 0


def test_a_teacher_that_would_learn_nothing_is_refused() -> None:
    """By the losses that the teacher in question has: two of them are the demo's alone."""
    nothing = dict.fromkeys(TEACHER_WEIGHTS, 0)
    with pytest.raises(ValidationError, match=r"matching_weight, token_weight, listwise_weight are all 0.*; raise one"):
        teacher(**nothing)
    with pytest.raises(ValidationError, match=r"contrastive_weight, matching_weight are all 0.*; raise one"):
        teacher(teacher="a/b", contrastive_weight=0, matching_weight=0)
    for name in TEACHER_WEIGHTS:
        teacher(**nothing | {name: 1})


def test_more_negatives_than_a_batch_holds_are_refused() -> None:
    """The others of a batch are all that there are."""
    with pytest.raises(
        ValidationError, match=r"negatives is 16, and a pair has 15 others in its batch; lower it or raise batch_size"
    ):
        teacher(negatives=16, batch_size=16)
    assert teacher(negatives=15, batch_size=16).negatives == 15


@pytest.mark.parametrize("settings", [student, teacher])
@pytest.mark.parametrize("warmup", [60, 61])
def test_a_warmup_as_long_as_the_training_is_refused(settings: Any, warmup: int) -> None:
    """Its rate would be far from the one that the settings name."""
    with pytest.raises(ValidationError, match=rf"warmup_steps is {warmup} and steps 60, .*; lower warmup_steps"):
        settings(steps=60, warmup_steps=warmup)
    assert settings(steps=60, warmup_steps=59).warmup_steps == 59
