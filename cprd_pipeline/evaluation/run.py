"""Stage `evaluate`: students side by side on one split, and the teacher's upper bound read from rankings."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.corpus.relevance import read_relevance
from cprd_pipeline.evaluation.questions import DIRECTIONS, Questions, questions_of
from cprd_pipeline.evaluation.rankings import Rankings
from cprd_pipeline.evaluation.settings import TEACHER, EvaluateSettings
from cprd_pipeline.evaluation.students import EmbeddedStudent, FloatArray, answer, embed_student
from cprd_pipeline.evaluation.summary import results_rows, summarise
from cprd_pipeline.evaluation.teacher import list_similarities, rerank_questions
from cprd_pipeline.progress import progress_bar
from cprd_pipeline.store.atomic import write_bytes
from cprd_pipeline.store.folder import InputFolder, OutputWriter
from cprd_pipeline.store.report import StageReport, Stopwatch, earlier_report

METRICS = "metrics.json"


def run(settings: EvaluateSettings) -> StageReport:
    """Evaluate every student, and the teacher reranking one of them."""
    watch = Stopwatch()
    corpus = Corpus(settings.corpus)
    split = corpus.split(settings.split)
    questions = [questions_of(corpus, split, direction) for direction in DIRECTIONS]
    rankings = Rankings(settings.rankings, corpus, split) if settings.rankings is not None else None
    with watch.measure("embedding"):
        students = [embed_student(name, settings, corpus, split) for name in settings.students]
    writer = _open_output(settings, corpus, students, rankings)
    if not (up_to_date := writer.is_current()):
        with watch.measure("ranking"):
            _Evaluation(settings, students, questions, rankings, read_relevance(corpus, split), writer).write()
    content = InputFolder(settings.output, "evaluation").part_path(METRICS).read_bytes()
    write_bytes(settings.metrics, content)
    if up_to_date and (earlier := earlier_report(settings.report)):
        return earlier
    return _report(settings, questions, json.loads(content), watch).save(settings.report)


def _open_output(
    settings: EvaluateSettings, corpus: Corpus, students: list[EmbeddedStudent], rankings: Rankings | None
) -> OutputWriter:
    shaping: dict[str, Any] = {"split": settings.split, "students": list(settings.students)}
    inputs = {"corpus": corpus.digest} | {f"student {student.name}": student.fingerprint for student in students}
    if rankings is not None:
        shaping |= {"reranked": settings.reranked, "rerank_depth": settings.rerank_depth}
        inputs["rankings"] = rankings.digest
    return OutputWriter(settings.output, "evaluation", shaping, inputs)


class _Evaluation:
    """The parts of one evaluation; those that a killed run finished are not made again."""

    def __init__(
        self,
        settings: EvaluateSettings,
        students: list[EmbeddedStudent],
        questions: list[Questions],
        rankings: Rankings | None,
        relevance: FloatArray | None,
        writer: OutputWriter,
    ) -> None:
        self._depth = settings.rerank_depth
        self._reranked = settings.reranked
        self._students = students
        self._questions = questions
        self._lists = None if rankings is None else [rankings.direction(asked.direction) for asked in questions]
        self._relevance = relevance
        self._writer = writer

    def write(self) -> None:
        """Write all parts and finish the output."""
        with progress_bar("evaluating", len(self._students) + (self._lists is not None), "models") as bar:
            for student in self._students:
                self._write_student(student)
                bar.advance(1, student.name)
            if self._lists is not None:
                self._write_teacher()
                bar.advance(1, TEACHER)
        models = [student.name for student in self._students] + [TEACHER] * (self._lists is not None)
        self._writer.write_json(METRICS, {model: summarise(self._results(model)) for model in models})
        self._writer.finish()

    def _write_student(self, student: EmbeddedStudent) -> None:
        if not self._writer.has(name := _queries_part(student.name)):
            answers = [answer(student, asked, self._relevance) for asked in self._questions]
            self._writer.write_table(name, pa.concat_tables(answers))
        if self._lists is not None and not self._writer.has(name := f"lists-{student.name}.parquet"):
            pairs = zip(self._questions, self._lists, strict=True)
            self._writer.write_table(name, pa.concat_tables([list_similarities(student, *pair) for pair in pairs]))

    def _write_teacher(self) -> None:
        if self._lists is None or self._writer.has(name := _queries_part(TEACHER)):
            return
        base = next(student for student in self._students if student.name == self._reranked)
        base_results = self._results(base.name)
        tables = []
        for asked, lists in zip(self._questions, self._lists, strict=True):
            rows = base_results.filter(pc.equal(base_results["direction"], asked.direction))
            ranks = rows["rank"].to_numpy().astype(np.int64)
            tables.append(rerank_questions(base, ranks, asked, lists, self._relevance, self._depth))
        self._writer.write_table(name, pa.concat_tables(tables))

    def _results(self, model: str) -> pa.Table:
        """Per-query results of a model, as they were written."""
        return pq.read_table(self._writer.folder / _queries_part(model))


def _queries_part(model: str) -> str:
    return f"queries-{model}.parquet"


def _report(
    settings: EvaluateSettings, questions: list[Questions], metrics: dict[str, dict[str, float]], watch: Stopwatch
) -> StageReport:
    models = [*settings.students, *([TEACHER] if TEACHER in metrics else [])]
    metrics = {model: metrics[model] for model in models}
    results: dict[str, Any] = {"metrics": metrics, "split": settings.split}
    table = results_rows(metrics, {TEACHER: f"teacher, top {settings.rerank_depth} of {settings.reranked}"})
    for asked in questions:
        silent = len(asked.query_rows) - len(asked.asked)
        results[asked.direction] = {"queries": len(asked.asked), "items": len(asked.item_rows), "without_positive": silent}
        left_out = f" ({silent:,} without a positive left out)" if silent else ""
        table.append((f"{asked.direction} queries", f"{len(asked.asked):,} among {len(asked.item_rows):,} items{left_out}"))
    return StageReport("evaluate", settings.as_json(), results, table, watch.seconds)
