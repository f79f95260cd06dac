"""All students of a study through `evaluate`, on the split that counts and on the one that settings were chosen on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cprd_pipeline.errors import SettingsError
from cprd_pipeline.evaluation.outcomes import Outcome, outcome_of
from cprd_pipeline.evaluation.run import METRICS, run
from cprd_pipeline.evaluation.settings import TEACHER, EvaluateSettings
from cprd_pipeline.evaluation.study.settings import StudySettings, student_name
from cprd_pipeline.settings import load_settings
from cprd_pipeline.store.folder import InputFolder

# `evaluate` tests every two students, which a study does not need: it compares arms, by its own rules.
_REPLICATES = 20


@dataclass(frozen=True)
class Evaluated:
    """All students on one split.

    Args:
        settings: What `evaluate` was given.
        folder: What it wrote.
        metrics: Figures of each student and of the teacher, by name.
    """

    settings: EvaluateSettings
    folder: InputFolder
    metrics: dict[str, dict[str, float]]

    @property
    def teacher(self) -> dict[str, float] | None:
        """Figures of the teacher reranking the miner's lists."""
        return self.metrics.get(TEACHER)

    def figure(self, name: str, arm: str, seeds: tuple[int, ...]) -> list[float]:
        """One figure of an arm, seed by seed."""
        return [self.metrics[student_name(arm, seed)][name] for seed in seeds]

    def outcome(self, arm: str, seed: int) -> Outcome:
        """What one student did with each query."""
        return outcome_of(self.folder.table(f"queries-{student_name(arm, seed)}.parquet"))


def evaluate_arms(settings: StudySettings) -> Evaluated:
    """Everything on the split of the evaluation's settings, the miner and the teacher too.

    Raises:
        SettingsError: These settings name no rankings.
    """
    base = _base(settings)
    if base.rankings is None:
        raise SettingsError(
            f"{settings.evaluation}: rankings is null",
            expected="the rankings of the split, which hold the teacher's order",
            do="name them there, or another file in evaluation of the study's settings",
        )
    return _evaluate(settings, base.split, {base.reranked: base.students[base.reranked]}, {})


def evaluate_chosen(settings: StudySettings) -> Evaluated | None:
    """RSUM and the like on the split that settings were chosen on; None when the study names none."""
    if settings.chosen_on is None:
        return None
    return _evaluate(settings, settings.chosen_on, {}, {"rankings": None})


def _base(settings: StudySettings) -> EvaluateSettings:
    return load_settings(EvaluateSettings, settings.evaluation)


def _evaluate(settings: StudySettings, split: str, others: dict[str, str], changes: dict[str, Any]) -> Evaluated:
    own = {student_name(arm, seed): str(settings.student(arm, seed)) for arm in settings.arms for seed in settings.seeds}
    folder = settings.folder / "evaluation" / split
    changes = changes | {
        "split": split,
        "students": others | own,
        "judged": {},
        "folds": None,
        "trec_depth": 0,
        "replicates": _REPLICATES,
        "output": str(folder),
        "metrics": str(_beside(settings, f"metrics_{split}")),
        "report": str(_beside(settings, f"evaluate_{split}")),
    }
    overrides = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
    chosen = load_settings(EvaluateSettings, settings.evaluation, overrides)
    run(chosen)
    written = InputFolder(folder, "evaluation")
    return Evaluated(chosen, written, json.loads(written.part_path(METRICS).read_text(encoding="utf-8")))


def _beside(settings: StudySettings, name: str) -> Path:
    return settings.folder / "reports" / f"{name}.json"
