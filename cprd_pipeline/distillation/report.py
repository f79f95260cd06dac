"""The report of stage `distill`."""

from dataclasses import dataclass
from typing import Any

from cprd_pipeline.distillation.collapse import TeacherTargets
from cprd_pipeline.distillation.history import History
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.pace import Pace
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.watched import batch_rows, watched_results, watched_rows
from cprd_pipeline.models.device import plain_name
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.store.report import StageReport, Stopwatch


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Args:
        student: As saved.
        history: Its log.
        pace: Its speed in this process.
    """

    student: DualEncoder
    history: History
    pace: Pace


@dataclass(frozen=True)
class Told:
    """What it learned from.

    Args:
        knowledge: The rankings' content; None for the contrastive loss alone.
        targets: The teacher's targets as the first batches see them.
        batches: Facts of the sampler.
    """

    knowledge: TeacherKnowledge | None
    targets: TeacherTargets | None
    batches: dict[str, Any]


def make_report(settings: DistillSettings, trained: Trained, told: Told, watch: Stopwatch, processes: int | None) -> StageReport:
    """Figures and table of a finished student.

    Args:
        settings: Of the stage.
        trained: What the training came to.
        told: What it learned from.
        watch: Clock of the run.
        processes: How many trained; None where an earlier run did, of which nobody knows with what.
    """
    student, history, pace = trained.student, trained.history, trained.pace
    last, done = history.rows[-1], int(history.rows[-1]["step"])
    parameters = sum(parameter.numel() for parameter in student.model.parameters())
    results: dict[str, Any] = {
        "objective": settings.objective,
        "steps": done,
        "parameters": parameters,
        "known_pairs": told.knowledge.pairs if told.knowledge else 0,
        "teacher": told.knowledge.teacher if told.knowledge else None,
        "device": str(student.device) if processes else None,
        "dtype": plain_name(student.dtype) if processes else None,
        "processes": processes,
        "batches": told.batches,
        "last": last,
        **watched_results(history, pace, told.targets),
    }
    table = [
        ("student", f"{settings.output} ({parameters:,} parameters)"),
        ("objective", settings.objective),
        ("computed on", _where(student, processes)),
        ("pairs known from the teacher", f"{results['known_pairs']:,}"),
        *batch_rows(told.batches),
        ("steps", f"{done:,} of {settings.batch_size} pairs{_when(done, pace, watch)}"),
        ("last loss", f"{last['loss']:.3f} (itc {last['contrastive']:.3f}, distill {last['distillation']:.3f})"),
        *watched_rows(settings, history, pace, told.targets),
    ]
    return StageReport("distill", settings.as_json(), results, table, watch.seconds)


def _where(student: DualEncoder, processes: int | None) -> str:
    if processes is None:
        return "not known: by an earlier run"
    return f"{student.device}, {plain_name(student.dtype)}" + (f", {processes} processes" if processes > 1 else "")


def _when(done: int, pace: Pace, watch: Stopwatch) -> str:
    """How long the steps took, and how many of them an earlier run had done."""
    if "training" not in watch.seconds:
        return ", by an earlier run"
    seconds = f" in {watch.seconds['training']:.0f} s"
    return seconds if pace.steps == done else f", the last {pace.steps:,}{seconds}"
