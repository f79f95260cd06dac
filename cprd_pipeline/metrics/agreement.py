"""How far two orders of the same lists agree: Kendall's tau, over whole lists and within bands of one of the orders."""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Float64, Int64

from cprd_pipeline.metrics.graded import positions_in_lists

# Lists looked at, evenly spaced: the mean over so many is known to a hundredth, and comparing pairs grows with the square.
_COMPARED_LISTS = 2000


def kendall_tau(lengths: Int64[np.ndarray, " R"], left: Float[np.ndarray, " T"], right: Float[np.ndarray, " T"]) -> float | None:
    """Mean of Kendall's tau-a over lists of two or more; None when there is none. Otherwise as `kendall_taus`."""
    taus = kendall_taus(lengths, left, right)
    return round(float(np.mean(taus)), 6) if len(taus) else None


def kendall_taus(
    lengths: Int64[np.ndarray, " R"], left: Float[np.ndarray, " T"], right: Float[np.ndarray, " T"]
) -> Float64[np.ndarray, " L"]:
    """Kendall's tau-a of each list of two or more.

    1 for the same order, -1 for the reverse; a tie counts 0. At most 2,000 lists, evenly spaced, are looked at.

    Args:
        lengths: Items of each list.
        left: One value an item, list by list.
        right: Another one.
    """
    starts = np.cumsum(lengths) - lengths
    comparable = np.flatnonzero(lengths > 1)
    if not len(comparable):
        return np.empty(0)
    sample = comparable[np.unique(np.linspace(0, len(comparable) - 1, min(len(comparable), _COMPARED_LISTS)).astype(np.int64))]
    taus = []
    for row in sample:
        items = slice(starts[row], starts[row] + lengths[row])
        agreement = np.sign(_differences(left[items])) * np.sign(_differences(right[items]))
        taus.append(float(agreement.sum()) / (lengths[row] * (lengths[row] - 1)))
    return np.array(taus)


def kendall_tau_by_band(
    lengths: Int64[np.ndarray, " R"],
    sorting: Float[np.ndarray, " T"],
    other: Float[np.ndarray, " T"],
    edges: tuple[int, ...],
) -> list[float | None]:
    """Kendall's tau among the items whose rank by `sorting` lies in a band; one entry a band.

    Args:
        lengths: Items of each list.
        sorting: Whose ranks make the bands, higher first.
        other: The other order.
        edges: Last rank of each band, ascending; 5, 10 means ranks 1-5 and 6-10.
    """
    lists = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((-sorting, lists))
    ranks = positions_in_lists(lists[order]) + 1
    taus = []
    for first, last in zip((0, *edges), edges, strict=False):
        rows = order[(ranks > first) & (ranks <= last)]
        taus.append(kendall_tau(np.bincount(lists[rows], minlength=len(lengths)), sorting[rows], other[rows]))
    return taus


def _differences(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return values[:, None] - values[None, :]
