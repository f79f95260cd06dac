"""Stage `distill`: from a corpus, and rankings where the objective wants them, to a student folder."""

import json
from dataclasses import dataclass

import torch

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.batches import Contents, PositivePairs
from cprd_pipeline.distillation.card import model_card
from cprd_pipeline.distillation.checkpoints import Checkpoints
from cprd_pipeline.distillation.collapse import TeacherTargets, targets_of_training
from cprd_pipeline.distillation.evaluation import Evaluator
from cprd_pipeline.distillation.history import History
from cprd_pipeline.distillation.knowledge import TeacherKnowledge, open_rankings
from cprd_pipeline.distillation.learner import Learner
from cprd_pipeline.distillation.listing import Listing
from cprd_pipeline.distillation.loop_settings import TwoTowers
from cprd_pipeline.distillation.meeting import CandidateDraw, Meetings
from cprd_pipeline.distillation.pace import Pace
from cprd_pipeline.distillation.pixels import PixelSource
from cprd_pipeline.distillation.processes import Processes, device_of_process, join_processes
from cprd_pipeline.distillation.report import Told, Trained, make_report
from cprd_pipeline.distillation.sampling import Sampler, build_sampler
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.trained import merge_adapters
from cprd_pipeline.distillation.trainer import Trainer
from cprd_pipeline.distillation.watched import evaluation_of_saved, save_series_of, warn_before_training
from cprd_pipeline.errors import StoreError
from cprd_pipeline.models.device import choose_device, choose_dtype
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.models.sentence_export import loads_in_sentence_transformers
from cprd_pipeline.models.students import initial_student, student_identity, two_tower_student
from cprd_pipeline.store.conclusion import conclude, earlier_report
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.report import StageReport, Stopwatch

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
    device = choose_device(device_of_process(settings.device))
    with join_processes(settings.batch_size, device) as processes:
        return _run(settings, processes, device)


def _run(settings: DistillSettings, processes: Processes, device: torch.device) -> StageReport:
    corpus = Corpus(settings.corpus)
    evaluator = None
    if settings.eval_steps is not None:
        evaluator = Evaluator(corpus, corpus.split(settings.eval_split), settings.batch_size)
    rankings = open_rankings(settings.rankings)
    made_from = _inputs(settings, corpus, rankings)
    writer = OutputWriter(settings.output, "student", settings.shaping(), made_from, leads=processes.leads)
    earlier = earlier_report(settings.report, writer)
    processes.wait()  # Nobody looks for what the leading process is already writing.
    if earlier is not None:
        return earlier
    watch = Stopwatch()
    with watch.measure("loading"):
        data = _data(settings, corpus, rankings)
    before = writer.is_current()
    if before:
        trained = _read_back(settings, device)
    else:
        trained = _trained(settings, data, evaluator, processes, device, writer, watch)
    told = Told(data.knowledge, data.targets, data.sampler.facts)
    report = make_report(settings, trained, told, watch, None if before else processes.size)
    if not processes.leads:
        return report
    save_series_of(settings, trained.history)
    return conclude(report, settings.report, writer)


def _trained(
    settings: DistillSettings,
    data: _Data,
    evaluator: Evaluator | None,
    processes: Processes,
    device: torch.device,
    writer: OutputWriter,
    watch: Stopwatch,
) -> Trained:
    """Train, and put the student into place."""
    with watch.measure("loading"):
        student = _begin(settings, device)
    if processes.leads:
        warn_before_training(settings, data.targets)
    with watch.measure("training"):
        lent = _lend_bias(settings, student)
        learner = Learner(settings, student, data.corpus, data.knowledge, data.positives, processes, writer.state / "bank")
        trainer = Trainer(settings, learner, data.meetings, Checkpoints(writer.state / "checkpoints"), processes, evaluator)
        _train(settings, trainer, data.corpus)
        if lent:
            # Saved, it would be a weight that the model's class does not know.
            del student.model.logit_bias
    if processes.leads:
        with watch.measure("saving"):
            _save(settings, writer, trainer, data)
    return Trained(student, trainer.history, trainer.pace)


def _read_back(settings: DistillSettings, device: torch.device) -> Trained:
    """What a run that was killed before its report had put into place; nobody knows its speed."""
    log = InputFolder(settings.output, "student").part_path(TRAINING_LOG).read_text(encoding="utf-8").splitlines()
    student = DualEncoder.load(str(settings.output), device, torch.float32)
    student.dtype = choose_dtype(settings.precision, device)
    return Trained(student, History(settings, map(json.loads, log)), Pace())


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


def _begin(settings: DistillSettings, device: torch.device) -> DualEncoder:
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
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in trainer.history.rows)
    writer.write_bytes(TRAINING_LOG, lines.encode())
    model, split = trainer.student.model, data.corpus.split(settings.split)
    card = model_card(
        writer.settings,
        writer.inputs,
        data.knowledge.teacher if data.knowledge else None,
        model.config.model_type,
        trainer.history.rows[-1],
        evaluation_of_saved(settings, trainer.history),
        items=(len(split.images), len(split.captions)),
        sentences=loads_in_sentence_transformers(model),
    )
    writer.write_bytes("README.md", card.encode())
    writer.finish()
