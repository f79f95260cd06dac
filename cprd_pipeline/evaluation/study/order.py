"""In how far two orders agree within parts of lists, such as the first ranks of each.

Only items that stand near each other in the list are compared: in a wider part, items that are far apart would make any order
look better. Shape suffixes: R lists, T items of all lists.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from cprd_pipeline.metrics.significance import GroupedQueries

REACH = 4
"""How many ranks the two items of a compared pair are apart at most: all pairs of the first five ranks."""


class PairCounts(NamedTuple):
    """Compared pairs of each list.

    Args:
        same: Both orders put the same item first.
        reverse: They disagree.
    """

    same: Int64[np.ndarray, " R"]
    reverse: Int64[np.ndarray, " R"]

    @property
    def compared(self) -> int:
        """Pairs of all lists."""
        return int(self.same.sum() + self.reverse.sum())

    @property
    def gamma(self) -> float | None:
        """By how much more pairs agree than disagree, as a share of both: 1 the same order, 0 unrelated; None without pairs.

        Source: Goodman & Kruskal 1954, "Measures of association for cross classifications".
        """
        return int(self.same.sum() - self.reverse.sum()) / self.compared if self.compared else None

    def grouped(self) -> GroupedQueries:
        """One group a list, so that the mean over all groups is `gamma`."""
        return GroupedQueries((self.same - self.reverse).astype(np.float64)[:, None], self.same + self.reverse)


def count_pairs(
    lengths: Int64[np.ndarray, " R"],
    inside: Bool[np.ndarray, " T"],
    left: Float[np.ndarray, " T"],
    right: Float[np.ndarray, " T"],
) -> PairCounts:
    """Compare two orders of near items; pairs that tie in either are left out.

    Args:
        lengths: Items of each list; they lie one list after the other.
        inside: Which items take part.
        left: One value an item, higher is better.
        right: Another one.
    """
    lists = np.repeat(np.arange(len(lengths)), lengths)
    same, reverse = np.zeros_like(lengths), np.zeros_like(lengths)
    for apart in range(1, REACH + 1):
        pairs = (lists[:-apart] == lists[apart:]) & inside[:-apart] & inside[apart:]
        agreement = np.sign(left[:-apart] - left[apart:]) * np.sign(right[:-apart] - right[apart:])
        same += np.bincount(lists[:-apart][pairs & (agreement > 0)], minlength=len(lengths))
        reverse += np.bincount(lists[:-apart][pairs & (agreement < 0)], minlength=len(lengths))
    return PairCounts(same, reverse)
