"""What the evaluation of a judged set gives."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class PerQuery:
    """Results query by query, for significance tests.

    Args:
        ids: Of the queries: corpus ids of images or captions, or names of the judged pairs.
        values: For each figure that is a mean over queries: one value a query, in the figure's unit; float64 [Q].
    """

    ids: list[str]
    values: dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class JudgedResult:
    """A student on a judged set.

    Args:
        figures: Shares in percent, correlations in [-1, 1]; higher is better.
        counts: What was used and what was left out; each set's function says what its counts are.
        unknown: The first few judged ids that the split lacks.
        queries: Results query by query: `i2t` and `t2i`, or `pairs`; empty where a set has none.
    """

    figures: dict[str, float]
    counts: dict[str, int]
    unknown: tuple[str, ...]
    queries: dict[str, PerQuery] = field(default_factory=dict)
