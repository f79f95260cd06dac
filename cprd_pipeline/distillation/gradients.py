"""Whether the two parts of the loss pull the student the same way."""

import math
from collections.abc import Sequence

from torch import Tensor

Gradients = Sequence[Tensor | None]


def gradient_cosine(ours: Gradients, theirs: Gradients) -> float | None:
    """Cosine between the gradients of two losses, all weights as one vector; weights of the two losses would not change it.

    Args:
        ours: Gradient of one loss by each weight, None where the loss does not depend on it.
        theirs: Gradient of the other loss by the same weights.

    Returns:
        In [-1, 1]; None where a gradient is zero, or not finite as in float16 before the loss scale has settled.
    """
    lengths = math.sqrt(_dot(ours, ours)) * math.sqrt(_dot(theirs, theirs))
    if not lengths or not math.isfinite(lengths):
        return None
    return max(-1.0, min(1.0, _dot(ours, theirs) / lengths))


def _dot(ours: Gradients, theirs: Gradients) -> float:
    """In float64: many small products are added. A parameter that a loss does not reach has no gradient, which is zero."""
    pairs = zip(ours, theirs, strict=True)
    return math.fsum(float((a.double() * b.double()).sum()) for a, b in pairs if a is not None and b is not None)
