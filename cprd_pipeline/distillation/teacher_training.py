"""Stage `train-teacher`: from a corpus of its own to the folder of a small cross-encoder."""

import json
from typing import Any

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.checkpoints import Checkpoints
from cprd_pipeline.distillation.pixels import PixelSource
from cprd_pipeline.distillation.teacher_card import teacher_card
from cprd_pipeline.distillation.teacher_evaluation import TeacherQuality, evaluate_teacher
from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings
from cprd_pipeline.distillation.teacher_trainer import TeacherTrainer
from cprd_pipeline.models.device import choose_device, choose_dtype
from cprd_pipeline.models.scene_teacher import SceneTeacher, build_scene_teacher
from cprd_pipeline.store.folder import InputFolder, OutputWriter
from cprd_pipeline.store.report import StageReport, Stopwatch, earlier_report

TRAINING_LOG = "training_log.jsonl"


def run(settings: TrainTeacherSettings) -> StageReport:
    """Train the demo's teacher, or go on with one whose training was interrupted, then measure the finished folder."""
    corpus = Corpus(settings.corpus)
    writer = OutputWriter(settings.output, "teacher", settings.shaping(), {"corpus": corpus.digest})
    watch = Stopwatch()
    if not writer.is_current():
        _train(settings, corpus, writer, watch)
    elif (earlier := earlier_report(settings.report)) and earlier.settings == settings.as_json():
        return earlier
    quality = _evaluate(settings, corpus, watch)
    return _report(settings, quality, watch).save(settings.report)


def _train(settings: TrainTeacherSettings, corpus: Corpus, writer: OutputWriter, watch: Stopwatch) -> None:
    split = corpus.split(settings.split)
    device = choose_device(settings.device)
    words = [corpus.texts[row] for row in split.captions]
    teacher = build_scene_teacher(words, settings.seed, device, choose_dtype("float32", device))
    trainer = TeacherTrainer(settings, teacher, corpus, split, Checkpoints(writer.state / "checkpoints"))
    with ImageReader(corpus, settings.workers) as reader:
        pixels = PixelSource(reader, teacher.pixels, settings.pixel_cache_gb)
        with watch.measure("decoding"):
            pixels.prepare(corpus, trainer.image_rows)
        with watch.measure("training"):
            trainer.run(pixels)
    teacher.save(writer.folder)
    for path in sorted(writer.folder.iterdir()):
        writer.adopt(path.name)
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in trainer.log)
    writer.write_bytes(TRAINING_LOG, lines.encode())
    writer.write_bytes("README.md", teacher_card(settings.shaping(), corpus.digest).encode())
    writer.finish()


def _evaluate(settings: TrainTeacherSettings, corpus: Corpus, watch: Stopwatch) -> TeacherQuality | None:
    if settings.validation_split is None:
        return None
    device = choose_device(settings.device)
    teacher = SceneTeacher.load(settings.output, device, choose_dtype("float32", device))
    split = corpus.split(settings.validation_split)
    with ImageReader(corpus, settings.workers) as reader, watch.measure("evaluating"):
        return evaluate_teacher(teacher, reader, corpus, split, settings.rerank_depth, settings.seed)


def _report(settings: TrainTeacherSettings, quality: TeacherQuality | None, watch: Stopwatch) -> StageReport:
    log = InputFolder(settings.output, "teacher").part_path(TRAINING_LOG).read_text(encoding="utf-8").splitlines()
    last = json.loads(log[-1])
    results: dict[str, Any] = {"steps": settings.steps, "last": last, "device": str(choose_device(settings.device))}
    table = [
        ("teacher", str(settings.output)),
        ("computed on", f"{results['device']}, float32"),
        ("steps", f"{settings.steps:,} of {settings.batch_size} pairs in {watch.seconds.get('training', 0.0):.0f} s"),
        ("last loss", f"{last['total']:.3f} (matching {last['matching']:.3f}, listwise {last['listwise']:.3f})"),
    ]
    if quality is not None:
        results |= quality._asdict()
        table += [
            ("RSUM of its dual branch", f"{quality.dual_rsum:.1f} of 600"),
            (f"RSUM, top {settings.rerank_depth} reranked", f"{quality.reranked_rsum:.1f}"),
            ("pairs on the right side of 0", f"{quality.matching_accuracy:.1f} %"),
        ]
    return StageReport("train-teacher", settings.as_json(), results, table, watch.seconds)
