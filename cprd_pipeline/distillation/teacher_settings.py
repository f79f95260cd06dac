"""Settings of the stage `train-teacher`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cprd_pipeline.distillation.schedule import check_warmup
from cprd_pipeline.settings import (
    Beta,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ReportPath,
    Seed,
    Settings,
    Share,
    StageSettings,
)

SCENES = "scenes"
"""Name of the demo world's teacher, made anew from the seed."""


class BlipTraining(Settings):
    """What only a BLIP asks for.

    Args:
        first_token: Token 0 of what the matching head reads: `cls` as in transformers, `enc` as published.
        max_text_tokens: Longest caption in tokens; null for the model's own limit.
        precision: Of the towers, by autocast; `auto` is bfloat16 on a GPU that has it. Weights and heads stay float32.
        gradient_checkpointing: Layers are computed again for the gradients, for less memory and the same result.
    """

    first_token: Literal["cls", "enc"] = "cls"
    max_text_tokens: PositiveInt | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False


class TrainTeacherSettings(StageSettings):
    """Stage `train-teacher`: every knob; stages/train_teacher.yaml explains each."""

    corpus: Path = Path("data/teacher_corpus")
    split: str = "train"
    validation_split: str | None = "val"
    teacher: str = SCENES
    output: Path = Path("data/teacher")
    report: ReportPath = Path("data/reports/train_teacher.json")

    seed: Seed = 0
    steps: PositiveInt = 1800
    batch_size: Annotated[int, Field(ge=2)] = 64
    length_window: PositiveInt = 16
    learning_rate: PositiveFloat = 2e-3
    warmup_steps: NonNegativeInt = 100
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    weight_decay: NonNegativeFloat = 0.02
    clip_norm: PositiveFloat = 1.0

    negatives: PositiveInt = 1
    hard_share: Share = 0.5
    contrastive_weight: NonNegativeFloat = 1.0
    token_weight: NonNegativeFloat = 1.0
    matching_weight: NonNegativeFloat = 1.0
    listwise_weight: NonNegativeFloat = 1.0
    blip: BlipTraining = BlipTraining()

    rerank_depth: PositiveInt = 16
    checkpoint_steps: PositiveInt = 200
    log_steps: PositiveInt = 50
    device: str = "auto"
    workers: NonNegativeInt = 0
    pixel_cache_gb: NonNegativeFloat = 2.0

    @model_validator(mode="after")
    def _the_beginning_stays(self) -> "TrainTeacherSettings":
        # DVC deletes an output before its stage runs.
        if Path(self.teacher).resolve() == self.output.resolve():
            raise ValueError(f"teacher and output are both {self.output}, which would be overwritten; name another output")
        return self

    @model_validator(mode="after")
    def _a_batch_has_its_negatives(self) -> "TrainTeacherSettings":
        others = self.batch_size - 1
        if self.negatives > others:
            raise ValueError(
                f"negatives is {self.negatives}, and a pair has {others} others in its batch; lower it or raise batch_size"
            )
        return self

    @model_validator(mode="after")
    def _something_is_trained(self) -> "TrainTeacherSettings":
        weights = {"contrastive_weight": self.contrastive_weight, "matching_weight": self.matching_weight}
        if self.teacher == SCENES:
            weights |= {"token_weight": self.token_weight, "listwise_weight": self.listwise_weight}
        if not any(weights.values()):
            raise ValueError(f"{', '.join(weights)} are all 0, so that nothing would be learned; raise one")
        return self

    @model_validator(mode="after")
    def _the_warmup_ends(self) -> "TrainTeacherSettings":
        check_warmup(self.warmup_steps, self.steps)
        return self

    def measuring(self) -> dict[str, object]:
        """The settings that shape the report and not the teacher."""
        return {"validation_split": self.validation_split, "rerank_depth": self.rerank_depth}

    def shaping(self) -> dict[str, object]:
        """The settings that shape the teacher's bytes: no paths, no device, no speed, nothing that only measures."""
        where = {"corpus", "teacher", "output", "report", "device", "workers", "pixel_cache_gb", "checkpoint_steps"}
        measures = self.measuring().keys()
        unused = {"blip"} if self.teacher == SCENES else {"token_weight", "listwise_weight"}
        values = {key: value for key, value in self.as_json().items() if key not in where | measures | unused}
        if "blip" in values:
            del values["blip"]["gradient_checkpointing"]
        return values
