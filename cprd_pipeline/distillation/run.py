"""Stage `distill`: from a corpus, and rankings where the objective wants them, to a student folder."""

import json
from dataclasses import dataclass
from typing import Any

import torch

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.batches import Contents, PositivePairs
from cprd_pipeline.distillation.card import model_card
from cprd_pipeline.distillation.checkpoints import Checkpoints
from cprd_pipeline.distillation.collapse import TeacherTargets, targets_of_training
from cprd_pipeline.distillation.evaluation import Evaluator
from cprd_pipeline.distillation.knowledge import TeacherKnowledge, open_rankings
from cprd_pipeline.distillation.learner import Learner
from cprd_pipeline.distillation.listing import Listing
from cprd_pipeline.distillation.loop_settings import TwoTowers
from cprd_pipeline.distillation.meeting import CandidateDraw, Meetings
from cprd_pipeline.distillation.pixels import PixelSource
from cprd_pipeline.distillation.processes import Processes, device_of_process, join_processes
from cprd_pipeline.distillation.sampling import Sampler, build_sampler
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.trained import merge_adapters
from cprd_pipeline.distillation.trainer import Trainer
from cprd_pipeline.distillation.watched import (
    batch_rows,
    evaluation_of_saved,
    save_series_of,
    warn_before_training,
    watched_results,
    watched_rows,
)
from cprd_pipeline.errors import StoreError
from cprd_pipeline.models.device import choose_device, choose_dtype
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.models.sentence_export import loads_in_sentence_transformers
from cprd_pipeline.models.students import initial_student, student_identity, two_tower_student
from cprd_pipeline.store.folder import InputFolder, OutputWriter
from cprd_pipeline.store.report import StageReport, Stopwatch, earlier_report

TRAINING_LOG = "training_log.jsonl"


@dataclass(frozen=True)
class _Data:
    """What a run learns from.

    Args:
        corpus: Captions, pictures, ids.
        knowledge: The rankings' content; None for the contrastive loss alone.
        positives: Annotated pairs of contents.
        sampler: Draws the pairs of a step.
        meetings: What a step encodes.
        targets: The teacher's targets as the first batches see them.
    """

    corpus: Corpus
    knowledge: TeacherKnowledge | None
    positives: PositivePairs
    sampler: Sampler
    meetings: Meetings
    targets: TeacherTargets | None


def run(settings: DistillSettings) -> StageReport:
    """Train one student, or go on with one whose training was interrupted; one of several processes when torchrun started it."""
    with join_processes(settings.batch_size) as processes:
        return _run(settings, processes)


def _run(settings: DistillSettings, processes: Processes) -> StageReport:
    corpus = Corpus(settings.corpus)
    evaluator = None
    if settings.eval_steps is not None:
        evaluator = Evaluator(corpus, corpus.split(settings.eval_split), settings.batch_size)
    rankings = open_rankings(settings.rankings)
    writer = OutputWriter(settings.output, "student", settings.shaping(), _inputs(settings, corpus, rankings))
    current = writer.is_current()
    processes.wait()  # Nobody looks for what the leading process is already writing.
    if current and (earlier := earlier_report(settings.report, settings.output)):
        return earlier
    watch = Stopwatch()
    with watch.measure("loading"):
        data = _data(settings, corpus, rankings)
        student = _begin(settings)
    if processes.leads:
        warn_before_training(settings, data.targets)
    with watch.measure("training"):
        lent = _lend_bias(settings, student)
        learner = Learner(settings, student, corpus, data.knowledge, data.positives, processes, writer.state / "bank")
        trainer = Trainer(settings, learner, data.meetings, Checkpoints(writer.state / "checkpoints"), processes, evaluator)
        _train(settings, trainer, corpus)
        if lent:
            # Saved, it would be a weight that the model's class does not know.
            del student.model.logit_bias
    if processes.leads:
        with watch.measure("saving"):
            _save(settings, writer, trainer, data)
        save_series_of(settings, trainer)
    report = _report(settings, trainer, data, watch, processes)
    return report.save(settings.report) if processes.leads else report


def _data(settings: DistillSettings, corpus: Corpus, rankings: list[InputFolder]) -> _Data:
    split = corpus.split(settings.split)
    knowledge = TeacherKnowledge.load(rankings, corpus) if rankings else None
    _check_valid_items(settings, knowledge)
    contents = Contents(corpus.images.first_with_digest, corpus.captions.first_with_digest)
    positives = PositivePairs(split, len(corpus.captions), contents)
    sampler = build_sampler(settings, corpus, split, knowledge)
    draw = None
    if settings.items == "encode" and knowledge is not None:
        draw = CandidateDraw(settings.encode, knowledge, positives, settings.seed)
    meetings = Meetings(sampler, draw)
    _check_known_images(settings, knowledge, sampler)
    targets = targets_of_training(settings, meetings, Listing(settings, knowledge, positives)) if knowledge else None
    return _Data(corpus, knowledge, positives, sampler, meetings, targets)


def _inputs(settings: DistillSettings, corpus: Corpus, rankings: list[InputFolder]) -> dict[str, str]:
    begin = settings.student
    if isinstance(begin, TwoTowers):
        identity = f"{student_identity(begin.vision)}+{student_identity(begin.text)}+{begin.projection_dim}"
    else:
        identity = student_identity(begin)
    made_from = {f"rankings {number}": folder.manifest.digest for number, folder in enumerate(rankings)}
    return {"corpus": corpus.digest, "student": identity, **made_from}


def _begin(settings: DistillSettings) -> DualEncoder:
    device = choose_device(device_of_process(settings.device))
    dtype = choose_dtype(settings.precision, device)
    weights = torch.float64 if dtype == torch.float64 else torch.float32
    begin = settings.student
    if isinstance(begin, TwoTowers):
        student = two_tower_student(begin.vision, begin.text, begin.projection_dim, settings.seed, device, weights)
    else:
        student = initial_student(begin, settings.seed, device, weights)
    student.dtype = dtype
    return student


def _check_valid_items(settings: DistillSettings, knowledge: TeacherKnowledge | None) -> None:
    """Refuse a run in which no candidate's rank would carry knowledge."""
    if knowledge is None or settings.objective != "cprd" or settings.cprd.valid != "rankings":
        return
    if min(knowledge.image_cutoffs.min(), knowledge.caption_cutoffs.min()) == float("inf"):
        raise StoreError(
            "no query of the rankings has a valid hard negative (n_valid is 0 everywhere)",
            expected="some",
            do="relax the validity rule in stages/score_teacher.yaml, or set cprd.valid: listed",
        )


def _check_known_images(settings: DistillSettings, knowledge: TeacherKnowledge | None, sampler: Sampler) -> None:
    """Refuse rankings that say nothing about any image of the training, such as those of another split."""
    if knowledge is not None and not knowledge.knows(sampler.image_rows):
        raise StoreError(
            f"the rankings hold no pair with an image of split {settings.split} ({knowledge.pairs:,} scored pairs of other images)",
            expected="rankings of the split that is trained on",
            do=f"mine and score it (`split: {settings.split}` in stages/mine.yaml), or name its rankings",
        )


def _train(settings: DistillSettings, trainer: Trainer, corpus: Corpus) -> None:
    with ImageReader(corpus, settings.workers, trainer.student.preprocess) as reader:
        pixels = PixelSource(reader, settings.pixel_cache_gb)
        pixels.prepare(corpus, trainer.image_rows)
        trainer.student.model = trainer.run(pixels)
        merge_adapters(trainer.student.model)


def _lend_bias(settings: DistillSettings, student: DualEncoder) -> bool:
    """Give the student a bias to learn for the sigmoid loss where its class has none; whether that was so."""
    if settings.contrastive != "sigmoid" or hasattr(student.model, "logit_bias"):
        return False
    scale = student.logit_scale
    student.model.logit_bias = torch.nn.Parameter(torch.full_like(scale.detach(), settings.sigmoid_bias))
    return True


def _save(settings: DistillSettings, writer: OutputWriter, trainer: Trainer, data: _Data) -> None:
    trainer.student.save(writer.folder)
    for path in sorted(writer.folder.rglob("*")):
        if path.is_file():
            writer.adopt(str(path.relative_to(writer.folder)))
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in trainer.log)
    writer.write_bytes(TRAINING_LOG, lines.encode())
    model, split = trainer.student.model, data.corpus.split(settings.split)
    card = model_card(
        writer.settings,
        writer.inputs,
        data.knowledge.teacher if data.knowledge else None,
        model.config.model_type,
        trainer.log[-1],
        evaluation_of_saved(settings, trainer),
        items=(len(split.images), len(split.captions)),
        sentences=loads_in_sentence_transformers(model),
    )
    writer.write_bytes("README.md", card.encode())
    writer.finish()


def _report(settings: DistillSettings, trainer: Trainer, data: _Data, watch: Stopwatch, processes: Processes) -> StageReport:
    knowledge, targets = data.knowledge, data.targets
    student, last, done = trainer.student, trainer.log[-1], int(trainer.log[-1]["step"])
    parameters = sum(parameter.numel() for parameter in student.model.parameters())
    results: dict[str, Any] = {
        "objective": settings.objective,
        "steps": done,
        "parameters": parameters,
        "known_pairs": knowledge.pairs if knowledge else 0,
        "teacher": knowledge.teacher if knowledge else None,
        "device": str(student.device),
        "dtype": str(student.dtype).removeprefix("torch."),
        "processes": processes.size,
        "batches": data.sampler.facts,
        "last": last,
        **watched_results(trainer, targets),
    }
    table = [
        ("student", f"{settings.output} ({parameters:,} parameters)"),
        ("objective", settings.objective),
        ("computed on", f"{results['device']}, {results['dtype']}" + (f", {processes.size} processes" * (processes.size > 1))),
        ("pairs known from the teacher", f"{results['known_pairs']:,}"),
        *batch_rows(data.sampler.facts),
        ("steps", f"{done:,} of {settings.batch_size} pairs in {watch.seconds['training']:.0f} s"),
        ("last loss", f"{last['loss']:.3f} (itc {last['contrastive']:.3f}, distill {last['distillation']:.3f})"),
        *watched_rows(settings, trainer, targets),
    ]
    return StageReport("distill", settings.as_json(), results, table, watch.seconds)
