"""Whether the two parts of the loss pull the student the same way."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Gradients = Sequence[Tensor | None]


def gradient_cosine(first: Float[Tensor, ""], second: Float[Tensor, ""], parameters: Sequence[Tensor]) -> float | None:
    """Cosine between the gradients of two losses, all parameters as one vector, by a backward pass each.

    The graph stays for the backward pass that trains, and no `.grad` is touched. Weights of the two losses would not
    change a cosine.

    Args:
        first: A loss.
        second: Another loss of the same graph.
        parameters: What the gradients are taken by.

    Returns:
        In [-1, 1]; None where a gradient is zero or a loss depends on no parameter.
    """
    if not (first.requires_grad and second.requires_grad):
        return None
    ours, theirs = (torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in (first, second))
    lengths = math.sqrt(_dot(ours, ours)) * math.sqrt(_dot(theirs, theirs))
    return max(-1.0, min(1.0, _dot(ours, theirs) / lengths)) if lengths else None


def _dot(ours: Gradients, theirs: Gradients) -> float:
    """In float64: many small products are added. A parameter that a loss does not reach has no gradient, which is zero."""
    pairs = zip(ours, theirs, strict=True)
    return math.fsum(float((a.double() * b.double()).sum()) for a, b in pairs if a is not None and b is not None)
