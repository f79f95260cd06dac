"""Learning rate over the steps of a run."""

import math

FLOOR = 0.02
"""Share of the peak that the cosine ends at."""


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """The product of a linear warm-up and of half a cosine over all steps, down to 2 % of the peak.

    The cosine falls during the warm-up too: with 100 of 2,400 steps of warm-up the highest rate is 0.996 of the peak, with half
    of the steps 0.53 of it.

    Args:
        step: Number of finished steps, from 0.
        steps: Length of the whole schedule.
        warmup: Length of the warm-up, less than `steps`; 0 for none.
        peak: Where the cosine begins.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return peak * rise * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def check_warmup(warmup: int, steps: int) -> None:
    """Refuse a schedule that has nothing after its warm-up.

    Args:
        warmup: Length of the warm-up.
        steps: Length of the whole schedule.

    Raises:
        ValueError: As a validator of settings says it.
    """
    if warmup >= steps:
        raise ValueError(f"warmup_steps is {warmup} and steps {steps}, so that all would be warm-up; lower warmup_steps")
