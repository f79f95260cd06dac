"""Exact quantiles of values that come part by part, in memory that does not grow with them.

The values come twice: first they are counted by the upper half of their bits, then, where that half is a wanted value's, by the
lower half. Bits are turned so that they sort as the values do.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

_HALF = 16
_SIGN = 1 << 31


class _Wanted(NamedTuple):
    """The values on both sides of each quantile, [2, S].

    Args:
        uppers: The upper half of each one's bits.
        ranks: Its rank among the values with that half, from 0.
        weights: How far each quantile lies from the lower value to the upper one, [S].
    """

    uppers: Counts
    ranks: Counts
    weights: npt.NDArray[np.float64]


class Quantiles:
    """The values that NumPy's `quantile` gives for all of them at once.

    Args:
        shares: In [0, 1], [S].
    """

    def __init__(self, shares: Sequence[float]) -> None:
        self._shares = np.array(shares)
        self._uppers = np.zeros(1 << _HALF, dtype=np.int64)

    def count(self, values: Floats) -> None:
        """See finite values for the first time."""
        self._uppers += np.bincount(_codes(values) >> _HALF, minlength=len(self._uppers))

    def locate(self, values: Floats) -> None:
        """See them again, after all were counted."""
        if not len(values):
            return
        codes = _codes(values)
        places = self._place[codes >> _HALF]
        inside = places >= 0
        np.add.at(self._lowers, (places[inside], codes[inside] & ((1 << _HALF) - 1)), 1)

    def results(self) -> list[float] | None:
        """The quantile of each share, after all values were located; None without values."""
        if not self._uppers.any():
            return None
        uppers, ranks, weights = self._wanted
        ends = np.cumsum(self._lowers, axis=1)
        flat = zip(self._place[uppers].ravel(), ranks.ravel(), strict=True)
        lowers = np.array([np.searchsorted(ends[place], rank, side="right") for place, rank in flat]).reshape(uppers.shape)
        below, above = _values((uppers << _HALF | lowers).astype(np.uint32)).astype(np.float64)
        return [float(np.quantile(pair, weight)) for *pair, weight in zip(below, above, weights, strict=True)]

    @cached_property
    def _wanted(self) -> _Wanted:
        ends = np.cumsum(self._uppers)
        indices = self._shares * (ends[-1] - 1)
        below = np.floor(indices).astype(np.int64)
        ranks = np.stack([below, np.minimum(below + 1, ends[-1] - 1)])
        uppers = np.searchsorted(ends, ranks, side="right")
        return _Wanted(uppers, ranks - (ends - self._uppers)[uppers], indices - below)

    @cached_property
    def _place(self) -> Counts:
        """Row of each upper half in `_lowers`, -1 where it is not wanted."""
        wanted = np.unique(self._wanted.uppers)
        places = np.full(len(self._uppers), -1, dtype=np.int64)
        places[wanted] = np.arange(len(wanted))
        return places

    @cached_property
    def _lowers(self) -> Counts:
        return np.zeros((int(self._place.max()) + 1, 1 << _HALF), dtype=np.int64)


def _codes(values: Floats) -> npt.NDArray[np.uint32]:
    """Numbers in the values' order; both zeros are one."""
    bits = (values + np.float32(0)).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _values(codes: npt.NDArray[np.uint32]) -> Floats:
    return np.where(codes & _SIGN, codes ^ _SIGN, ~codes).view(np.float32)
