"""Stage `train-teacher`: from annotated pairs to the folder of a cross-encoder, the demo's own or a fine-tuned BLIP."""

import json
from collections.abc import Mapping
from typing import Any

import torch

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.distillation.blip_recipe import BlipRecipe, blip_identity
from cprd_pipeline.distillation.checkpoints import Checkpoints
from cprd_pipeline.distillation.pixels import PixelSource
from cprd_pipeline.distillation.teacher_evaluation import DualBranch, TeacherQuality, evaluate_teacher
from cprd_pipeline.distillation.teacher_recipe import Recipe
from cprd_pipeline.distillation.teacher_scenes import SceneDual, SceneRecipe
from cprd_pipeline.distillation.teacher_settings import SCENES, TrainTeacherSettings
from cprd_pipeline.distillation.teacher_trainer import TeacherTrainer
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.models.blip import BlipTeacher
from cprd_pipeline.models.cross_encoder import CrossEncoder
from cprd_pipeline.models.device import choose_device, choose_dtype
from cprd_pipeline.models.scene_teacher import SceneTeacher
from cprd_pipeline.store.conclusion import conclude, earlier_report
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.report import StageReport, Stopwatch

TRAINING_LOG = "training_log.jsonl"


def run(settings: TrainTeacherSettings) -> StageReport:
    """Train a teacher, or go on with one whose training was interrupted, then measure the finished folder."""
    corpus = Corpus(settings.corpus)
    held_out = _held_out(settings, corpus)
    begun_from = {} if settings.teacher == SCENES else {"teacher": blip_identity(settings.teacher)}
    writer = OutputWriter(settings.output, "teacher", settings.shaping(), {"corpus": corpus.digest, **begun_from})
    watch = Stopwatch()
    if (earlier := earlier_report(settings.report, writer, settings.measuring())) is not None:
        return earlier
    if not writer.is_current():
        _train(settings, corpus, writer, watch)
    quality = None if held_out is None else _evaluate(settings, corpus, held_out, watch)
    return conclude(_report(settings, quality, watch), settings.report, writer)


def _held_out(settings: TrainTeacherSettings, corpus: Corpus) -> Split | None:
    """What the teacher is measured on; that it is there is known before a long training."""
    if settings.validation_split is None:
        return None
    split = corpus.split(settings.validation_split)
    if not len(split.positives):
        raise CorpusError(
            f"split {split.name}: no image has a caption in it",
            expected="at least one pair to measure the teacher by",
            do="choose another validation_split, or set it to null",
        )
    return split


def _train(settings: TrainTeacherSettings, corpus: Corpus, writer: OutputWriter, watch: Stopwatch) -> None:
    split = corpus.split(settings.split)
    with watch.measure("loading"):
        recipe = _recipe(settings, corpus, split, writer.inputs)
    trainer = TeacherTrainer(settings, recipe, split, Checkpoints(writer.state / "checkpoints"))
    with ImageReader(corpus, settings.workers, recipe.preprocess) as reader:
        pixels = PixelSource(reader, settings.pixel_cache_gb)
        with watch.measure("decoding"):
            pixels.prepare(corpus, trainer.image_rows)
        with watch.measure("training"):
            trainer.run(pixels)
    recipe.save(writer.folder)
    for path in sorted(writer.folder.iterdir()):
        writer.adopt(path.name)
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in trainer.log)
    writer.write_bytes(TRAINING_LOG, lines.encode())
    writer.write_bytes("README.md", recipe.card(corpus.digest).encode())
    writer.finish()


def _recipe(settings: TrainTeacherSettings, corpus: Corpus, split: Split, inputs: Mapping[str, str]) -> Recipe:
    device = choose_device(settings.device)
    if settings.teacher == SCENES:
        return SceneRecipe(settings, corpus, split, device)
    return BlipRecipe(settings, corpus, split, device, inputs["teacher"])


def _evaluate(settings: TrainTeacherSettings, corpus: Corpus, split: Split, watch: Stopwatch) -> TeacherQuality:
    teacher, dual = _trained(settings)
    with ImageReader(corpus, settings.workers, teacher.preprocess) as reader, watch.measure("evaluating"):
        return evaluate_teacher(teacher, dual, reader, corpus, split, settings.rerank_depth, settings.seed)


def _trained(settings: TrainTeacherSettings) -> tuple[CrossEncoder, DualBranch]:
    """The finished folder as `score-teacher` reads it, in float32."""
    device = choose_device(settings.device)
    if settings.teacher == SCENES:
        scenes = SceneTeacher.load(settings.output, device, torch.float32)
        return scenes, SceneDual(scenes)
    chosen = {"first_token": settings.blip.first_token, "max_text_tokens": settings.blip.max_text_tokens}
    blip = BlipTeacher.load(settings.output, device, torch.float32, **chosen)
    return blip, blip


def _report(settings: TrainTeacherSettings, quality: TeacherQuality | None, watch: Stopwatch) -> StageReport:
    log = InputFolder(settings.output, "teacher").part_path(TRAINING_LOG).read_text(encoding="utf-8").splitlines()
    last = json.loads(log[-1])
    device = choose_device(settings.device)
    dtype = choose_dtype("float32" if settings.teacher == SCENES else settings.blip.precision, device)
    results: dict[str, Any] = {"steps": settings.steps, "last": last, "device": str(device)}
    parts = [name for name in ("contrastive", "tokens", "matching", "listwise") if name in last]
    table = [
        ("teacher", str(settings.output)),
        ("computed on", f"{device}, {str(dtype).removeprefix('torch.')}"),
        ("steps", f"{settings.steps:,} of {settings.batch_size} pairs{_when(watch)}"),
        ("last loss", f"{last['total']:.3f} ({', '.join(f'{name} {last[name]:.3f}' for name in parts)})"),
    ]
    if quality is not None:
        results |= quality._asdict()
        accuracy = quality.matching_accuracy
        table += [
            ("RSUM of its dual branch", f"{quality.dual_rsum:.1f} of 600"),
            (f"RSUM, top {settings.rerank_depth} reranked", f"{quality.reranked_rsum:.1f}"),
            ("pairs on the right side of 0", "no random pair to tell from" if accuracy is None else f"{accuracy:.1f} %"),
        ]
    return StageReport("train-teacher", settings.as_json(), results, table, watch.seconds)


def _when(watch: Stopwatch) -> str:
    seconds = watch.seconds.get("training")
    return ", by an earlier run" if seconds is None else f" in {seconds:.0f} s"
