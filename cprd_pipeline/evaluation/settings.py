"""Settings of the stage `evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from cprd_pipeline.settings import NonNegativeInt, PositiveInt, Settings

TEACHER = "teacher"
"""Name under which results show the teacher's reranking."""

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)]


def _demo_students() -> dict[str, str]:
    return {"base": "data/students/base", "cprd": "data/students/cprd"}


class EvaluateSettings(Settings):
    """Stage `evaluate`: which students on which split; stages/evaluate.yaml explains each."""

    corpus: Path = Path("data/corpus")
    split: str = "test"
    students: Annotated[dict[ModelName, str], Field(min_length=1)] = Field(default_factory=_demo_students)
    rankings: Path | None = Path("data/rankings/test")
    reranked: str = "base"
    rerank_depth: Annotated[int, Field(ge=10)] = 16
    folds: PositiveInt | None = None
    replicates: PositiveInt = 1000
    seed: NonNegativeInt = 0
    trec_depth: NonNegativeInt = 0
    other_corpus: Literal["refuse", "allow"] = "refuse"
    output: Path = Path("data/reports/evaluation")
    metrics: Path = Path("data/reports/metrics.json")
    report: Path = Path("data/reports/evaluate.json")

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    batch_size: PositiveInt = 256
    workers: NonNegativeInt = 0

    @model_validator(mode="after")
    def _names_fit(self) -> "EvaluateSettings":
        if TEACHER in self.students:
            raise ValueError(f"the name {TEACHER} is kept for the teacher's reranking; call the student something else")
        if self.rankings is not None and self.reranked not in self.students:
            raise ValueError(f"reranked is {self.reranked!r}, which is none of the students {', '.join(self.students)}")
        return self
