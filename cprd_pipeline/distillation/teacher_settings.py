"""Settings of the stage `train-teacher`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cprd_pipeline.settings import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Settings, Share


class TrainTeacherSettings(Settings):
    """Stage `train-teacher`: every knob; stages/train_teacher.yaml explains each."""

    corpus: Path = Path("data/teacher_corpus")
    split: str = "train"
    validation_split: str | None = "val"
    output: Path = Path("data/teacher")
    report: Path = Path("data/reports/train_teacher.json")

    seed: NonNegativeInt = 0
    steps: PositiveInt = 1800
    batch_size: Annotated[int, Field(ge=2)] = 64
    length_window: PositiveInt = 16
    learning_rate: PositiveFloat = 2e-3
    warmup_steps: NonNegativeInt = 100
    betas: tuple[Share, Share] = (0.9, 0.98)
    weight_decay: NonNegativeFloat = 0.02
    clip_norm: PositiveFloat = 1.0

    negatives: PositiveInt = 1
    hard_share: Share = 0.5
    contrastive_weight: NonNegativeFloat = 1.0
    token_weight: NonNegativeFloat = 1.0
    matching_weight: NonNegativeFloat = 1.0
    listwise_weight: NonNegativeFloat = 1.0

    rerank_depth: PositiveInt = 16
    checkpoint_steps: PositiveInt = 200
    log_steps: PositiveInt = 50
    device: str = "auto"
    workers: NonNegativeInt = 0
    pixel_cache_gb: NonNegativeFloat = 2.0

    def shaping(self) -> dict[str, object]:
        """The settings that shape the teacher's bytes: no paths, no device, no speed, nothing that only measures."""
        where = {"corpus", "output", "report", "device", "workers", "pixel_cache_gb", "checkpoint_steps"}
        measures = {"validation_split", "rerank_depth"}
        return {key: value for key, value in self.as_json().items() if key not in where | measures}
