"""Training logs: one JSON object a line."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from cprd_pipeline.errors import StoreError

# Columns of a training log that are no loss.
_OTHER_COLUMNS = frozenset({"step", "learning_rate", "scale", "gradient_cosine"})
_EVALUATED = "eval_"


@dataclass(frozen=True)
class TrainingLog:
    """A training's losses over its steps.

    Args:
        name: Of the training.
        steps: Ascending.
        terms: Each part of the loss, as many values as steps.
    """

    name: str
    steps: Float64[np.ndarray, " N"]
    terms: dict[str, Float64[np.ndarray, " N"]]


def read_log(name: str, path: Path) -> TrainingLog:
    """Read a training log: one JSON object a line with `step` and the losses of that step.

    A term that is zero throughout (distillation under a contrastive objective) is left out.

    Raises:
        StoreError: The file is missing, empty, or a line of it is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise StoreError(f"{path}: there is no such training log", do=f"mend logs.{name}, or run that training") from None
    rows = [_row(path, number, line) for number, line in enumerate(lines, start=1)]
    if not rows:
        raise StoreError(f"{path}: the training log is empty", do=f"remove logs.{name}, or run that training again")
    columns = {key: np.array([row.get(key, np.nan) for row in rows], dtype=np.float64) for key in rows[0]}
    terms = {key: values for key, values in columns.items() if _is_loss(key) and np.isfinite(values).all() and values.any()}
    return TrainingLog(name, columns["step"], terms)


def _is_loss(key: str) -> bool:
    return key not in _OTHER_COLUMNS and not key.startswith(_EVALUATED)


def _row(path: Path, number: int, line: str) -> dict[str, float]:
    try:
        row = {str(key): float(value) for key, value in json.loads(line).items()}
    except (ValueError, TypeError, AttributeError):
        row = {}
    if not np.isfinite(row.get("step", np.nan)):
        raise StoreError(f"{path}, line {number}: no line of a training log", expected='{"step": 50, "loss": 3.2, ...}')
    return row
