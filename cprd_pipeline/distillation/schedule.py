"""Learning rate over the steps of a run."""

import math

FLOOR = 0.02
"""Share of the peak that the cosine ends at."""


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up to the peak, then half a cosine down to 2 % of it.

    Args:
        step: Number of finished steps, from 0.
        steps: Length of the whole schedule.
        warmup: Steps until the peak; 0 for none.
        peak: Highest rate.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return peak * rise * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))
