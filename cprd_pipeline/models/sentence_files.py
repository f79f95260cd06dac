"""What every folder of sentence-transformers has in common, encoder or reranker: its JSON files and its weights."""

import json
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from cprd_pipeline.errors import ModelError, first_line

if TYPE_CHECKING:
    import torch


def read_json(path: Path, expected: str) -> Any:
    """A JSON file of the folder.

    Raises:
        ModelError: It is missing or no JSON; the message says what was expected instead.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({first_line(error)})", expected=expected) from error


def check_whole(folder: Path, model: "torch.nn.Module", files: Iterable[Path]) -> None:
    """Refuse a model with fewer numbers on disk than in memory.

    Transformers would go on with random numbers in the place of missing weights, and tells only its log. Counted rather
    than compared by name, since names on disk and in memory differ for many families.

    Args:
        folder: For the message.
        model: As it was loaded.
        files: Its weights, safetensors.

    Raises:
        ModelError: Weights are missing.
    """
    stored = 0
    for path in files:
        with safe_open(path, framework="pt") as file:
            stored += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())
    needed = sum(parameter.numel() for parameter in model.parameters())
    if stored < needed:
        raise ModelError(
            f"{folder}: {needed - stored} of {needed} weights are missing", expected="all of them in *.safetensors, not quantised"
        )
