"""Settings of the stage `evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from cprd_pipeline.settings import NonNegativeInt, PositiveInt, ReportPath, Settings, Share, StageSettings

TEACHER = "teacher"
"""Name under which results show the teacher's reranking."""

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)]


def _demo_students() -> dict[str, str]:
    return {"base": "data/students/base", "cprd": "data/students/cprd"}


class JudgedSets(Settings):
    """Files of sets that people judged beyond the annotated positives; null for those that are not evaluated.

    Args:
        eccv: Folder of ECCV Caption's files.
        cxc: A SITS file of Crisscrossed Captions.
        flickr8k: Folder with Flickr8k's ExpertAnnotations.txt and Flickr8k.token.txt.
        sugarcrepe: Folder of SugarCrepe's seven files.
        valse: Folder of VALSE's files.
        negclip: NegCLIP's table of negative captions.
        unknown_limit: Share of a set's ids that the split may lack; more for a part of COCO.
    """

    eccv: Path | None = None
    cxc: Path | None = None
    flickr8k: Path | None = None
    sugarcrepe: Path | None = None
    valse: Path | None = None
    negclip: Path | None = None
    unknown_limit: Share = 0.05

    @property
    def sets(self) -> dict[str, Path]:
        """Those that are evaluated."""
        named = {name: getattr(self, name) for name in type(self).model_fields if name != "unknown_limit"}
        return {name: path for name, path in named.items() if path is not None}


class EvaluateSettings(StageSettings):
    """Stage `evaluate`: which students on which split; stages/evaluate.yaml explains each."""

    corpus: Path = Path("data/corpus")
    split: str = "test"
    students: Annotated[dict[ModelName, str], Field(min_length=1)] = Field(default_factory=_demo_students)
    rankings: Path | None = Path("data/rankings/test")
    reranked: str = "base"
    rerank_depth: Annotated[int, Field(ge=10)] = 16
    judged: JudgedSets = JudgedSets()
    folds: PositiveInt | None = None
    replicates: PositiveInt = 1000
    seed: NonNegativeInt = 0
    trec_depth: NonNegativeInt = 0
    other_corpus: Literal["refuse", "allow"] = "refuse"
    output: Path = Path("data/reports/evaluation")
    metrics: Path = Path("data/reports/metrics.json")
    report: ReportPath = Path("data/reports/evaluate.json")

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

    def in_report(self) -> dict[str, object]:
        """The settings that shape the report: not where and how fast it is computed."""
        elsewhere = {"report", "metrics", "device", "dtype", "batch_size", "workers"}
        return {name: value for name, value in self.as_json().items() if name not in elsewhere}
