"""Finding 3: whether the two parts of the loss pull the student the same way, from the training logs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cprd_pipeline.store.folder import InputFolder

_TRAINING_LOG = "training_log.jsonl"
_COSINE = "gradient_cosine"


def cosine_results(students: Mapping[str, Sequence[InputFolder]]) -> dict[str, dict[str, Any]]:
    """For the report; arms whose training did not measure it are left out.

    Args:
        students: Folders of each arm, one a seed.

    Returns:
        For each arm the `steps` that all its seeds measured, the `mean` over the seeds at each of them, and, `by_seed`, the mean
        over the steps.
    """
    found = {}
    for arm, folders in students.items():
        logs = [_measured(folder) for folder in folders]
        steps = sorted(set(logs[0]).intersection(*logs[1:]))
        if steps:
            cosines = np.array([[log[step] for step in steps] for log in logs])
            over_seeds, over_steps = (cosines.mean(axis=axis).round(6).tolist() for axis in (0, 1))
            found[arm] = {"steps": steps, "mean": over_seeds, "by_seed": over_steps}
    return found


def _measured(student: InputFolder) -> dict[int, float]:
    """Cosine between the gradients of the two parts of the loss, by step."""
    lines = student.part_path(_TRAINING_LOG).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["step"]: row[_COSINE] for row in rows if _COSINE in row}
