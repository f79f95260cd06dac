"""Settings of the stage `score-teacher`."""

from pathlib import Path
from typing import Any, Literal

from pydantic import FiniteFloat, field_validator

from cprd_pipeline.models.teacher_choice import TeacherChoice
from cprd_pipeline.scoring.shards import EVERYTHING, Shard
from cprd_pipeline.settings import NonNegativeFloat, NonNegativeInt, PositiveInt, ReportPath, Settings, StageSettings


class ValidRule(Settings):
    """Which candidates are valid hard negatives; always the best of the list, by teacher score.

    Args:
        rule: `threshold`: scores above it; `top_m`: the best m; `margin`: at most that far below the lowest positive.
        threshold: A logit, used by `threshold`.
        top_m: Used by `top_m`.
        margin: Difference of logits, used by `margin`; a query without positives has no valid candidate then.
    """

    rule: Literal["threshold", "top_m", "margin"] = "threshold"
    threshold: FiniteFloat = 0.0
    top_m: PositiveInt = 16
    margin: NonNegativeFloat = 2.0

    def in_force(self) -> dict[str, Any]:
        """The rule and the one value that it uses."""
        return {"rule": self.rule, self.rule: getattr(self, self.rule)}


class ScoreSettings(StageSettings):
    """Every knob of `score-teacher`; stages/score_teacher.yaml explains each with its default.

    Args:
        corpus: Corpus folder.
        candidates: Candidates folder of a split of that corpus.
        teacher: The cross-encoder.
        store: Folder or address of the score store; null for the cache's.
        valid: Which candidates are valid hard negatives.
        false_negatives: What becomes of candidates above the query's best positive: `keep`, `mark` or `drop`.
        false_negative_margin: By how much (logits) a candidate must be above it.
        shard: `i/n`: score only the images of that shard, into the same store, and write no rankings; null for everything.
        in_loop_epochs: For how many epochs the report says what a teacher inside the training loop would have cost.
        output: Rankings folder.
        report: Where the stage's report goes.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        part_pairs: Pairs scored between two appends to the store: what a killed run loses at most.
        image_batch: Images encoded together.
        token_budget: Caption tokens scored together, over several images where they have few captions.
        workers: Processes that decode and preprocess images; 0 does it in the stage's own.
    """

    corpus: Path = Path("data/corpus")
    candidates: Path = Path("data/candidates/1")
    teacher: TeacherChoice = TeacherChoice()
    store: str | None = None
    valid: ValidRule = ValidRule()
    false_negatives: Literal["keep", "mark", "drop"] = "keep"
    false_negative_margin: NonNegativeFloat = 0.0
    shard: str | None = None
    in_loop_epochs: PositiveInt = 10
    output: Path = Path("data/rankings/1")
    report: ReportPath = Path("data/reports/score_teacher.json")
    device: str = "auto"
    part_pairs: PositiveInt = 16_384
    image_batch: PositiveInt = 8
    token_budget: PositiveInt = 1024
    workers: NonNegativeInt = 0

    @field_validator("shard")
    @classmethod
    def _check_shard(cls, shard: str | None) -> str | None:
        if shard is not None:
            Shard.parse(shard)
        return shard

    @property
    def share(self) -> Shard:
        """Which images are this run's."""
        return Shard.parse(self.shard) if self.shard else EVERYTHING
