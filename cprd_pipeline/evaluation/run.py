"""Stage `evaluate`: students side by side on one split, and the teacher reranking one's lists."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.corpus.relevance import read_relevance
from cprd_pipeline.evaluation.agreement import agreement, agreement_rows
from cprd_pipeline.evaluation.folds import figures_of_folds
from cprd_pipeline.evaluation.judged.run import Judgments, evaluate_judged, judged_digests, judged_rows
from cprd_pipeline.evaluation.judged.texts import text_embedder
from cprd_pipeline.evaluation.outcomes import RECALLS, outcome_of
from cprd_pipeline.evaluation.questions import DIRECTIONS, Questions, questions_of, split_positives
from cprd_pipeline.evaluation.rankings import DirectionRankings, Rankings
from cprd_pipeline.evaluation.reality import RSUM, Protocol, clear_winners, intervals
from cprd_pipeline.evaluation.scored_heads import head_figures, head_rows, scored_heads
from cprd_pipeline.evaluation.settings import TEACHER, EvaluateSettings
from cprd_pipeline.evaluation.students import EmbeddedStudent, answer, check_corpus, embed_student, student_fingerprints
from cprd_pipeline.evaluation.summary import results_rows, summarise
from cprd_pipeline.evaluation.teacher import check_mined_by, list_similarities, rerank_questions
from cprd_pipeline.evaluation.trec import relevance_file, run_file
from cprd_pipeline.metrics.ranking import RankedPositives
from cprd_pipeline.models.device import choose_device, choose_dtype
from cprd_pipeline.store.atomic import write_bytes
from cprd_pipeline.store.conclusion import conclude, earlier_report
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.report import StageReport, Stopwatch, save_series

METRICS = "metrics.json"
_HEADS = "heads.json"
"""How much of the reranked heads the teacher scored."""


def run(settings: EvaluateSettings) -> StageReport:
    """Evaluate every student, and the teacher reranking one of them."""
    watch = Stopwatch()
    corpus = Corpus(settings.corpus)
    check_corpus(settings, corpus)
    split = corpus.split(settings.split)
    rankings = Rankings(settings.rankings, corpus, split) if settings.rankings is not None else None
    questions = [questions_of(corpus, split, direction) for direction in DIRECTIONS]
    writer = _open_output(settings, corpus, rankings)
    earlier = earlier_report(settings.report, writer, settings.in_report())
    if not writer.is_current():
        evaluation = _Evaluation(settings, corpus, split, questions, rankings, writer, watch)
        evaluation.write()
    content = InputFolder(settings.output, "evaluation").part_path(METRICS).read_bytes()
    write_bytes(settings.metrics, content)
    if earlier is not None:
        return earlier
    return conclude(_report(settings, questions, rankings, json.loads(content), watch), settings.report, writer)


def _open_output(settings: EvaluateSettings, corpus: Corpus, rankings: Rankings | None) -> OutputWriter:
    shaping: dict[str, Any] = {"split": settings.split, "students": sorted(settings.students)}
    if settings.folds:
        shaping["folds"] = settings.folds
    if settings.trec_depth:
        shaping["trec_depth"] = settings.trec_depth
    inputs = {"corpus": corpus.digest}
    if settings.judged.sets:
        shaping |= {"seed": settings.seed, "replicates": settings.replicates, "unknown_limit": settings.judged.unknown_limit}
        inputs |= judged_digests(settings)
    inputs |= {f"student {name}": fingerprint for name, fingerprint in student_fingerprints(settings).items()}
    if rankings is not None:
        # Older versions took for the head what the lists held of it: their output is another one.
        shaping |= {"reranked": settings.reranked, "rerank_depth": settings.rerank_depth, "head": "exact"}
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
        if self._settings.trec_depth:
            for asked in self._questions:
                self._writer.write_bytes(f"qrels-{asked.direction}.txt", relevance_file(asked))
        self._writer.write_json(METRICS, {model: self._figures(model) for model in models})
        self._writer.finish()

    def _figures(self, model: str) -> dict[str, float]:
        figures = summarise(outcome_of(self._read(_queries_part(model))))
        if model == TEACHER:
            figures |= json.loads((self._writer.folder / _HEADS).read_text(encoding="utf-8"))
        if self._writer.has(_folds_part(model)):
            folds = json.loads((self._writer.folder / _folds_part(model)).read_text(encoding="utf-8"))
            figures |= {f"folds_{name}": value for name, value in folds.items()}
        if self._writer.has(_judged_part(model)):
            judgments = json.loads((self._writer.folder / _judged_part(model)).read_text(encoding="utf-8"))
            figures |= {f"{name}_{figure}": value for name, one in judgments.items() for figure, value in one["figures"].items()}
        return figures

    def _write_student(self, name: str) -> None:
        settings = self._settings
        runs = [_run_part(name, asked) for asked in self._questions if settings.trec_depth]
        folds = [_folds_part(name)] if settings.folds else []
        judged = [_judged_part(name)] if settings.judged.sets else []
        lists = [_lists_part(name)] if self._lists is not None else []
        # The lists come last: a killed run that has them has everything of the student.
        wanted = [_queries_part(name), *runs, *folds, *judged, *lists]
        if all(self._writer.has(part) for part in wanted):
            return
        with self._watch.measure("embedding"):
            student = embed_student(name, self._settings, self._corpus, self._split)
        with self._watch.measure("ranking"):
            positives = split_positives(self._split)
            self._writer.write_table(_queries_part(name), answer(student, self._questions, positives, self._relevance))
            if settings.folds:
                self._writer.write_json(_folds_part(name), figures_of_folds(student, positives, settings.folds))
            for part, asked in zip(runs, self._questions, strict=False):
                self._writer.write_bytes(part, run_file(student, asked, settings.trec_depth))
        if judged:
            with self._watch.measure("judged sets"):
                self._writer.write_json(_judged_part(name), self._judge(student))
        if self._lists is not None:
            with self._watch.measure("lists"):
                own = [list_similarities(student, *pair) for pair in zip(self._questions, self._lists, strict=True)]
                self._writer.write_table(_lists_part(name), pa.concat_tables(own))

    def _judge(self, student: EmbeddedStudent) -> Judgments:
        settings, device = self._settings, choose_device(self._settings.device)
        dtype = choose_dtype(settings.dtype, device)
        embed = text_embedder(settings.students[student.name], device=device, dtype=dtype, batch_size=settings.batch_size)
        return evaluate_judged(settings, self._corpus, self._split, student, embed)

    def _write_teacher(self, rankings: list[DirectionRankings]) -> None:
        if all(self._writer.has(part) for part in (_HEADS, _queries_part(TEACHER))):
            return
        settings = self._settings
        base_results, base_lists = (self._read(part(settings.reranked)) for part in (_queries_part, _lists_part))
        # Again, since it may have been another process that evaluated it; from the cache.
        student = embed_student(settings.reranked, settings, self._corpus, self._split)
        tables: list[pa.Table] = []
        scored: dict[str, float] = {}
        for asked, lists in zip(self._questions, rankings, strict=True):
            check_mined_by(_of_direction(base_lists, asked), lists)
            ranks = _of_direction(base_results, asked)["positive_ranks"].combine_chunks().flatten().to_numpy().astype(np.int64)
            heads = scored_heads(student, asked, lists, settings.rerank_depth)
            scored |= head_figures(heads, asked)
            tables.append(rerank_questions(RankedPositives(asked.positives, ranks), heads, asked, self._relevance))
        self._writer.write_json(_HEADS, scored)
        self._writer.write_table(_queries_part(TEACHER), pa.concat_tables(tables))

    def _read(self, part: str) -> pa.Table:
        """A part as it was written, by this run or by one that was killed."""
        return pq.read_table(self._writer.folder / part)


def _queries_part(model: str) -> str:
    return f"queries-{model}.parquet"


def _lists_part(model: str) -> str:
    return f"lists-{model}.parquet"


def _folds_part(model: str) -> str:
    return f"folds-{model}.json"


def _judged_part(model: str) -> str:
    return f"judged-{model}.json"


def _run_part(model: str, questions: Questions) -> str:
    return f"run-{model}-{questions.direction}.txt"


def _of_direction(table: pa.Table, questions: Questions) -> pa.Table:
    return table.filter(pc.equal(table["direction"], questions.direction))


def _report(
    settings: EvaluateSettings,
    questions: list[Questions],
    rankings: Rankings | None,
    metrics: dict[str, dict[str, float]],
    watch: Stopwatch,
) -> StageReport:
    folder = InputFolder(settings.output, "evaluation")
    models = [*settings.students, *([TEACHER] if TEACHER in metrics else [])]
    metrics = {model: metrics[model] for model in models}
    protocol = Protocol(settings.replicates, settings.seed)
    with watch.measure("intervals"):
        outcomes = [outcome_of(folder.table(_queries_part(model))) for model in models]
        found = {outcome.name: intervals(outcome, protocol) for outcome in outcomes}
        students = [outcome for outcome in outcomes if outcome.name != TEACHER]
        winners = clear_winners(students, protocol, [*RECALLS, RSUM])
    results: dict[str, Any] = {"metrics": metrics, "split": settings.split, "intervals": found, "clearly_best": winners}
    label = f"teacher, top {settings.rerank_depth} of {settings.reranked}"
    table = results_rows(metrics, {TEACHER: label}, found, winners)
    table += head_rows(metrics.get(TEACHER, {}))
    table.append(("± and bold", "half of a 95 % interval; best beyond chance"))
    if settings.judged.sets:
        own = {model: figures for model, figures in metrics.items() if model != TEACHER}
        judgments = {model: json.loads(folder.part_path(_judged_part(model)).read_text(encoding="utf-8")) for model in own}
        told = judgments[models[0]]
        results["judged"] = {name: {key: one[key] for key in ("counts", "unknown")} for name, one in told.items()}
        for name in settings.judged.sets:
            results["judged"][name]["intervals"] = {model: said[name]["intervals"] for model, said in judgments.items()}
        table += judged_rows(own, settings.judged.sets, judgments)
    if rankings is not None:
        results["agreement"] = _agreement(settings, folder, questions, rankings, protocol)
        table += agreement_rows(results["agreement"])
    for asked in questions:
        silent = len(asked.query_rows) - len(asked.asked)
        results[asked.direction] = {"queries": len(asked.asked), "items": len(asked.item_rows), "without_positive": silent}
        left_out = f" ({silent:,} without a positive left out)" if silent else ""
        table.append((f"{asked.direction} queries", f"{len(asked.asked):,} among {len(asked.item_rows):,} items{left_out}"))
    names = [name for name in metrics[models[0]] if all(name in figures for figures in metrics.values())]
    save_series(
        settings.report, "results", {"model": models} | {name: [metrics[model][name] for model in models] for name in names}
    )
    device = choose_device(settings.device)
    results |= {"device": str(device), "dtype": str(choose_dtype(settings.dtype, device)).removeprefix("torch.")}
    table.append(("computed on", f"{results['device']}, {results['dtype']}"))
    return StageReport("evaluate", settings.as_json(), results, table, watch.seconds)


def _agreement(
    settings: EvaluateSettings, folder: InputFolder, questions: list[Questions], rankings: Rankings, protocol: Protocol
) -> dict[str, dict[str, Any]]:
    """Of each student's order with the teacher's, by direction."""
    said = {asked.direction: rankings.direction(asked.direction) for asked in questions}
    found: dict[str, dict[str, Any]] = {}
    for model in settings.students:
        lists = folder.table(_lists_part(model))
        found[model] = {
            asked.direction: agreement(_of_direction(lists, asked), said[asked.direction], protocol) for asked in questions
        }
    return found
