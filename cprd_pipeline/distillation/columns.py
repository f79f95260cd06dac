"""Some asked items as the columns of a matrix: which of many sparse entries belong to one of them?"""

from typing import Any

import numpy as np
import numpy.typing as npt


class Columns:
    """The different ones of some items, found by binary search, so that cost does not grow with the number of all items.

    Args:
        items: Rows from 0, in any order, repeated or not; int [N].
    """

    def __init__(self, items: npt.NDArray[np.integer]) -> None:
        found, self._of = np.unique(items, return_inverse=True)
        self._sought = found
        self._found = np.append(found, -1)  # for what would be sought behind the last

    @property
    def different(self) -> int:
        """Number of different items, U."""
        return len(self._sought)

    def find(self, entries: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Where entries are among the items.

        Args:
            entries: Rows from 0, int [L].

        Returns:
            Positions of those entries that are, and the position of each in the different items, ascending; both int [H].
        """
        sought = self._sought.astype(entries.dtype)  # of one type, or NumPy would convert the many entries
        place = np.searchsorted(sought, entries)
        hit = np.flatnonzero(self._found[place] == entries)
        return hit, place[hit]

    def spread(self, matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """From columns of the different items to a column for each item that was asked for, [Q, U] -> [Q, N]."""
        return matrix[:, self._of]
