"""How fast training goes, and how much of its time it waits for pictures."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Pace:
    """Times of the steps of this process; those of an interrupted run before it, evaluations and saving do not count.

    Args:
        pairs: Pairs trained on.
        steps: In which they were.
        training_s: Seconds of all steps, waiting included.
        waiting_s: Seconds in which a step had no pictures yet.
    """

    pairs: int = 0
    steps: int = 0
    training_s: float = 0.0
    waiting_s: float = 0.0

    def measure(self, batches: Iterator[T], pairs: int) -> Iterator[T]:
        """The same batches; the time until one comes is waiting, the time until the next is asked for is its step's.

        Args:
            batches: Of `pairs` pairs each.
            pairs: Pairs in a batch.
        """
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waiting_s += time.perf_counter() - start
            yield batch
            self.training_s += time.perf_counter() - start
            self.pairs += pairs
            self.steps += 1

    @property
    def pairs_per_s(self) -> float | None:
        """Pairs a second; None before the first step."""
        return self.pairs / self.training_s if self.training_s else None

    @property
    def waiting_share(self) -> float | None:
        """Share of the training time that went into waiting, 0 to 1; None before the first step."""
        return self.waiting_s / self.training_s if self.training_s else None
