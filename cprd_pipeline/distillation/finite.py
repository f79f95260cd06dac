"""Weights that are worth keeping: a step that is too large leaves none."""

import torch
from torch import nn

from cprd_pipeline.errors import ModelError


def check_finite_weights(model: nn.Module, step: int) -> None:
    """Refuse weights that a step made infinite, or NaN.

    Args:
        model: In training.
        step: Number of finished steps.

    Raises:
        ModelError: All are counted, the first is named.
    """
    bad = [name for name, weights in model.named_parameters() if not torch.isfinite(weights).all()]
    if bad:
        raise ModelError(
            f"{len(bad)} weights are not finite after step {step} (first: {bad[0]})",
            expected="finite weights",
            do="lower learning_rate, or set a lower clip_norm; the last checkpoint is kept",
        )
