"""What the page is made from, read with its checks."""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import SettingsError, StoreError
from cprd_pipeline.reporting.background import NO_BACKGROUND, Background, read_background
from cprd_pipeline.reporting.logs import TrainingLog, read_log
from cprd_pipeline.reporting.settings import ReportSettings
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.report import StageReport, read_report
from cprd_pipeline.store.schemas import EVALUATED_LISTS, EVALUATED_QUERIES, RANKINGS, check_schema

TEACHER = "teacher"
"""Name under which the evaluation keeps the teacher's reranking."""


@dataclass(frozen=True)
class Inputs:
    """Everything of a run that the page shows.

    Args:
        corpus: The corpus.
        split: The evaluated split.
        metrics: Figures of each model; `teacher` is the teacher's reranking.
        background: Intervals and tests of those figures, as far as the evaluation's report is among the stages.
        miner: The student that mined the rankings.
        student: The student that the page sets beside it.
        rerank_depth: How many items of a list the teacher reordered in the metrics.
        rankings: The split's rankings.
        student_lists: The student's similarities of everything in the rankings, row by row.
        queries: Per-query results of each model, by name.
        fingerprints: What each thing is called by its content.
        stages: Stage reports with the names of their files.
        logs: Training logs.
    """

    corpus: Corpus
    split: str
    metrics: dict[str, dict[str, float]]
    background: Background
    miner: str
    student: str
    rerank_depth: int
    rankings: pa.Table
    student_lists: pa.Table
    queries: dict[str, pa.Table]
    fingerprints: dict[str, str]
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
    shaping = _shaping(settings, evaluation)
    metrics = json.loads(evaluation.part_path("metrics.json").read_bytes())
    stages = [(path.stem, read_report(path)) for path in settings.stages]
    lists = check_schema(rankings.tables(""), RANKINGS, str(settings.rankings))
    return Inputs(
        corpus,
        shaping["split"],
        metrics,
        _background(metrics, stages),
        shaping["reranked"],
        settings.student,
        shaping["rerank_depth"],
        lists,
        _student_lists(settings, evaluation, lists),
        {model: _queries(settings, evaluation, model) for model in metrics},
        _fingerprints(corpus, rankings, evaluation),
        stages,
        [read_log(name, path) for name, path in settings.logs.items()],
    )


def _shaping(settings: ReportSettings, evaluation: InputFolder) -> dict[str, Any]:
    shaping = evaluation.manifest.settings
    if settings.student not in shaping["students"]:
        known = ", ".join(shaping["students"])
        raise SettingsError(
            f"student is {settings.student!r}, which {settings.evaluation} does not know", expected=f"one of {known}"
        )
    return shaping


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


def _student_lists(settings: ReportSettings, evaluation: InputFolder, rankings: pa.Table) -> pa.Table:
    lists = check_schema(evaluation.table(f"lists-{settings.student}.parquet"), EVALUATED_LISTS, str(settings.evaluation))
    if any(rankings[column].to_pylist() != lists[column].to_pylist() for column in ("direction", "query_id")):
        raise StoreError(f"{settings.evaluation}: its lists are not those of {settings.rankings}", do="run evaluate again")
    return lists


def _queries(settings: ReportSettings, evaluation: InputFolder, model: str) -> pa.Table:
    return check_schema(evaluation.table(f"queries-{model}.parquet"), EVALUATED_QUERIES, str(settings.evaluation))


def _fingerprints(corpus: Corpus, rankings: InputFolder, evaluation: InputFolder) -> dict[str, str]:
    """The corpus first, then what was made from it."""
    found = {"corpus": corpus.digest}
    found |= {name: digest for name, digest in rankings.manifest.inputs.items() if name != "corpus"}
    found |= {name: digest for name, digest in evaluation.manifest.inputs.items() if name != "corpus"}
    return found | {"evaluation": evaluation.manifest.digest}


def _background(metrics: dict[str, dict[str, float]], stages: list[tuple[str, StageReport]]) -> Background:
    """From the report of this very evaluation, when it is among the stages."""
    for name, report in stages:
        if report.stage == "evaluate" and report.results.get("metrics") == metrics:
            return read_background(name, report.results)
    return NO_BACKGROUND
