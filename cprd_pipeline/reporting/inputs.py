"""What the page is made from, read with its checks."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import SettingsError, StoreError
from cprd_pipeline.reporting.settings import ReportSettings
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.report import StageReport, read_report
from cprd_pipeline.store.schemas import EVALUATED_LISTS, RANKINGS, check_schema

# Columns of a training log that are no loss.
_OTHER_COLUMNS = frozenset({"step", "learning_rate", "scale"})


@dataclass(frozen=True)
class TrainingLog:
    """A training's losses over its steps.

    Args:
        name: Of the training.
        steps: float64 [N].
        terms: Each part of the loss, float64 [N].
    """

    name: str
    steps: npt.NDArray[np.float64]
    terms: dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Inputs:
    """Everything of a run that the page shows.

    Args:
        corpus: The corpus.
        split: The evaluated split.
        metrics: Figures of each model; `teacher` is the teacher's reranking.
        miner: The student that mined the rankings.
        student: The student that the gallery sets beside it.
        rerank_depth: How many items of a list the teacher reordered in the metrics.
        rankings: The split's rankings.
        student_lists: The student's similarities of everything in the rankings, row by row.
        stages: Stage reports with the names of their files.
        logs: Training logs.
    """

    corpus: Corpus
    split: str
    metrics: dict[str, dict[str, float]]
    miner: str
    student: str
    rerank_depth: int
    rankings: pa.Table
    student_lists: pa.Table
    stages: list[tuple[str, StageReport]]
    logs: list[TrainingLog]


def read_inputs(settings: ReportSettings) -> Inputs:
    """Read the files of a run.

    Raises:
        StoreError: A file is missing or damaged, or two of them are not of the same run.
        SettingsError: The evaluation knows no such student.
    """
    corpus = Corpus(settings.corpus)
    rankings = InputFolder(settings.rankings, "rankings")
    evaluation = InputFolder(settings.evaluation, "evaluation")
    _check_same_run(settings, corpus, rankings, evaluation)
    shaping = evaluation.manifest.settings
    if settings.student not in shaping["students"]:
        known = ", ".join(shaping["students"])
        raise SettingsError(
            f"student is {settings.student!r}, which {settings.evaluation} does not know", expected=f"one of {known}"
        )
    return Inputs(
        corpus,
        shaping["split"],
        json.loads(evaluation.part_path("metrics.json").read_bytes()),
        shaping["reranked"],
        settings.student,
        shaping["rerank_depth"],
        check_schema(rankings.tables(""), RANKINGS, str(settings.rankings)),
        check_schema(evaluation.table(f"lists-{settings.student}.parquet"), EVALUATED_LISTS, str(settings.evaluation)),
        [(path.stem, read_report(path)) for path in settings.stages],
        [read_log(name, path) for name, path in settings.logs.items()],
    )


def _check_same_run(settings: ReportSettings, corpus: Corpus, rankings: InputFolder, evaluation: InputFolder) -> None:
    inputs = evaluation.manifest.inputs
    if inputs["corpus"] != corpus.digest:
        raise StoreError(
            f"{settings.evaluation}: an evaluation of another corpus ({inputs['corpus'][:8]})",
            expected=f"of {settings.corpus} ({corpus.digest[:8]})",
            do="run evaluate on this corpus",
        )
    if "rankings" not in inputs:
        raise StoreError(
            f"{settings.evaluation}: an evaluation without rankings",
            expected="one with the teacher's reranking, which the page compares with",
            do="name the split's rankings in stages/evaluate.yaml",
        )
    if inputs["rankings"] != rankings.manifest.digest:
        raise StoreError(
            f"{settings.rankings}: not the rankings of {settings.evaluation}",
            expected=f"those with digest {inputs['rankings'][:8]}",
            do="name the same rankings in both stages, or run evaluate again",
        )


def read_log(name: str, path: Path) -> TrainingLog:
    """Read a training log: one JSON object a line with `step` and the losses of that step.

    A term that is zero throughout (distillation under a contrastive objective) is left out.

    Raises:
        StoreError: The file is missing, empty, or a line of it is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise StoreError(f"{path}: there is no such training log", do=f"mend logs.{name}, or run that training") from None
    rows = [_log_row(path, number, line) for number, line in enumerate(lines, start=1)]
    if not rows:
        raise StoreError(f"{path}: the training log is empty", do=f"remove logs.{name}, or run that training again")
    columns = {key: np.array([row.get(key, np.nan) for row in rows], dtype=np.float64) for key in rows[0]}
    terms = {
        key: values for key, values in columns.items() if key not in _OTHER_COLUMNS and np.isfinite(values).all() and values.any()
    }
    return TrainingLog(name, columns["step"], terms)


def _log_row(path: Path, number: int, line: str) -> dict[str, float]:
    try:
        row = {str(key): float(value) for key, value in json.loads(line).items()}
    except (ValueError, TypeError, AttributeError):
        row = {}
    if not np.isfinite(row.get("step", np.nan)):
        raise StoreError(f"{path}, line {number}: no line of a training log", expected='{"step": 50, "loss": 3.2, ...}')
    return row
