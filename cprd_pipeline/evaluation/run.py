"""Stage `evaluate`: students side by side on one split, and the teacher's upper bound read from rankings."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.corpus.relevance import read_relevance
from cprd_pipeline.evaluation.questions import DIRECTIONS, Questions, questions_of
from cprd_pipeline.evaluation.rankings import DirectionRankings, Rankings
from cprd_pipeline.evaluation.settings import TEACHER, EvaluateSettings
from cprd_pipeline.evaluation.students import answer, embed_student, student_fingerprints
from cprd_pipeline.evaluation.summary import results_rows, summarise
from cprd_pipeline.evaluation.teacher import check_mined_by, list_similarities, rerank_questions
from cprd_pipeline.models.device import choose_device, choose_dtype
from cprd_pipeline.store.atomic import write_bytes
from cprd_pipeline.store.folder import InputFolder, OutputWriter
from cprd_pipeline.store.report import StageReport, Stopwatch, earlier_report

METRICS = "metrics.json"


def run(settings: EvaluateSettings) -> StageReport:
    """Evaluate every student, and the teacher reranking one of them."""
    watch = Stopwatch()
    corpus = Corpus(settings.corpus)
    split = corpus.split(settings.split)
    rankings = Rankings(settings.rankings, corpus, split) if settings.rankings is not None else None
    questions = [questions_of(corpus, split, direction) for direction in DIRECTIONS]
    writer = _open_output(settings, corpus, rankings)
    if not (up_to_date := writer.is_current()):
        evaluation = _Evaluation(settings, corpus, split, questions, rankings, writer, watch)
        evaluation.write()
    content = InputFolder(settings.output, "evaluation").part_path(METRICS).read_bytes()
    write_bytes(settings.metrics, content)
    if up_to_date and (earlier := earlier_report(settings.report)):
        return earlier
    return _report(settings, questions, json.loads(content), watch).save(settings.report)


def _open_output(settings: EvaluateSettings, corpus: Corpus, rankings: Rankings | None) -> OutputWriter:
    shaping: dict[str, Any] = {"split": settings.split, "students": sorted(settings.students)}
    inputs = {"corpus": corpus.digest}
    inputs |= {f"student {name}": fingerprint for name, fingerprint in student_fingerprints(settings).items()}
    if rankings is not None:
        shaping |= {"reranked": settings.reranked, "rerank_depth": settings.rerank_depth}
        inputs["rankings"] = rankings.digest
    return OutputWriter(settings.output, "evaluation", shaping, inputs)


class _Evaluation:
    """The parts of one evaluation; those that a killed run finished are not made again."""

    def __init__(
        self,
        settings: EvaluateSettings,
        corpus: Corpus,
        split: Split,
        questions: list[Questions],
        rankings: Rankings | None,
        writer: OutputWriter,
        watch: Stopwatch,
    ) -> None:
        self._settings = settings
        self._corpus = corpus
        self._split = split
        self._questions = questions
        self._lists = None if rankings is None else [rankings.direction(asked.direction) for asked in questions]
        self._relevance = read_relevance(corpus, split)
        self._writer = writer
        self._watch = watch

    def write(self) -> None:
        """Write all parts and finish the output."""
        models = list(self._settings.students)
        for name in models:
            self._write_student(name)
        if self._lists is not None:
            with self._watch.measure("reranking"):
                self._write_teacher(self._lists)
            models.append(TEACHER)
        self._writer.write_json(METRICS, {model: summarise(self._read(_queries_part(model))) for model in models})
        self._writer.finish()

    def _write_student(self, name: str) -> None:
        wanted = [_queries_part(name)] + [_lists_part(name)] * (self._lists is not None)
        if all(self._writer.has(part) for part in wanted):
            return
        with self._watch.measure("embedding"):
            student = embed_student(name, self._settings, self._corpus, self._split)
        with self._watch.measure("ranking"):
            answers = [answer(student, asked, self._relevance) for asked in self._questions]
            self._writer.write_table(_queries_part(name), pa.concat_tables(answers))
        if self._lists is not None:
            with self._watch.measure("lists"):
                lists = [list_similarities(student, *pair) for pair in zip(self._questions, self._lists, strict=True)]
                self._writer.write_table(_lists_part(name), pa.concat_tables(lists))

    def _write_teacher(self, rankings: list[DirectionRankings]) -> None:
        if self._writer.has(_queries_part(TEACHER)):
            return
        base_results = self._read(_queries_part(self._settings.reranked))
        base_lists = self._read(_lists_part(self._settings.reranked))
        tables = []
        for asked, lists in zip(self._questions, rankings, strict=True):
            check_mined_by(_of_direction(base_lists, asked), lists)
            ranks = _of_direction(base_results, asked)["rank"].to_numpy().astype(np.int64)
            tables.append(rerank_questions(ranks, asked, lists, self._relevance, self._settings.rerank_depth))
        self._writer.write_table(_queries_part(TEACHER), pa.concat_tables(tables))

    def _read(self, part: str) -> pa.Table:
        """A part as it was written, by this run or by one that was killed."""
        return pq.read_table(self._writer.folder / part)


def _queries_part(model: str) -> str:
    return f"queries-{model}.parquet"


def _lists_part(model: str) -> str:
    return f"lists-{model}.parquet"


def _of_direction(table: pa.Table, questions: Questions) -> pa.Table:
    return table.filter(pc.equal(table["direction"], questions.direction))


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
    device = choose_device(settings.device)
    results |= {"device": str(device), "dtype": str(choose_dtype(settings.dtype, device)).removeprefix("torch.")}
    table.append(("computed on", f"{results['device']}, {results['dtype']}"))
    return StageReport("evaluate", settings.as_json(), results, table, watch.seconds)
