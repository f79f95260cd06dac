"""What stands behind the bar of a training: everything that a line of 80 columns has room for."""

from typing import NamedTuple


class Losses(NamedTuple):
    """`LossParts` as plain numbers."""

    total: float
    contrastive: float
    distillation: float


def training_note(losses: Losses, rate: float, waiting_share: float | None, rsum: float | None) -> str:
    """Text such as `1.23+0.45 lr2.0e-3 3%wait R312`, at most 32 characters below a loss of 1000.

    Args:
        losses: Of the step: contrastive, then distillation.
        rate: Learning rate of the step.
        waiting_share: Share of the time that went into waiting for pictures; None before it is known.
        rsum: RSUM of the last evaluation; None before the first.
    """
    parts = [f"{_short(losses.contrastive)}+{_short(losses.distillation)}", f"lr{rate:.1e}".replace("e-0", "e-")]
    parts += [] if waiting_share is None else [f"{waiting_share:.0%}wait"]
    parts += [] if rsum is None else [f"R{rsum:.0f}"]
    return " ".join(parts)


def _short(loss: float) -> str:
    """Four characters: 0.12, 1.23, 12.3, 123."""
    return f"{loss:.{2 if loss < 9.995 else 1 if loss < 99.95 else 0}f}"
