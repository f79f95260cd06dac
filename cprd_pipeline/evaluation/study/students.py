"""The students of a study: all there, and trained alike but for what their arms change."""

import json
from typing import Any

from cprd_pipeline.errors import StoreError
from cprd_pipeline.evaluation.study.settings import StudySettings, student_name
from cprd_pipeline.store.folder import InputFolder, Manifest

NEXT = "run `cprd-pipeline study --run`"
"""What makes whatever a study lacks."""


def open_students(settings: StudySettings) -> dict[str, list[InputFolder]]:
    """The folders of each arm, one a seed.

    Raises:
        StoreError: One is missing, or two differ in what all arms share: corpus, initial weights, steps and the like.
    """
    students = {arm: [_open(settings, arm, seed) for seed in settings.seeds] for arm in settings.arms}
    _check_shared(settings, students)
    return students


def _open(settings: StudySettings, arm: str, seed: int) -> InputFolder:
    try:
        return InputFolder(settings.student(arm, seed), "student")
    except StoreError as error:
        raise StoreError(error.found, expected=error.expected, do=NEXT) from None


def _check_shared(settings: StudySettings, students: dict[str, list[InputFolder]]) -> None:
    changed = {name.split(".")[0] for arm in settings.arms.values() for name in arm.set}
    for place, seed in enumerate(settings.seeds):
        first = _shared(students[settings.reference][place].manifest, changed)
        for arm in settings.arms:
            own = _shared(students[arm][place].manifest, changed)
            for name in sorted(first.keys() & own.keys()):
                if first[name] != own[name]:
                    raise StoreError(
                        f"{student_name(arm, seed)} and {student_name(settings.reference, seed)} differ in {name} "
                        f"({json.dumps(own[name])} and {json.dumps(first[name])})",
                        expected="arms that share everything but what they change",
                        do=NEXT,
                    )


def _shared(manifest: Manifest, changed: set[str]) -> dict[str, Any]:
    """Settings and inputs of a student but for those that an arm changes; not every objective has all settings."""
    inputs = {name: manifest.inputs.get(name) for name in ("corpus", "student")}
    return inputs | {name: value for name, value in manifest.settings.items() if name not in changed}
