"""Choosing from the lists of several queries at once: the first few of each, or a few at random.

Shape suffixes: L entries of all lists, one list after the other; Q queries, K places.
"""

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Rows


def first_of_each(owners: Rows, count: int) -> npt.NDArray[np.bool_]:
    """Marks the first entries of every list.

    Args:
        owners: Query of each entry, ascending; int64 [L].
        count: Entries that are marked at most.

    Returns:
        bool [L].
    """
    chosen: npt.NDArray[np.bool_] = places(owners) < count
    return chosen


def some_of_each(owners: Rows, count: int, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Marks entries of every list at random, each as likely as any other of its list.

    Args:
        owners: Query of each entry, ascending; int64 [L].
        count: Entries that are marked at most.
        random: Draws L numbers.

    Returns:
        bool [L].
    """
    order = np.lexsort((random.random(len(owners)), owners))
    chosen = np.zeros(len(owners), dtype=np.bool_)
    chosen[order] = first_of_each(owners, count)
    return chosen


def places(owners: Rows) -> Rows:
    """Place of each entry within its list, from 0; int64 [L].

    Args:
        owners: Query of each entry, ascending; int64 [L].
    """
    begins = np.flatnonzero(np.diff(owners, prepend=-1))
    lengths = np.diff(begins, append=len(owners))
    found: Rows = np.arange(len(owners)) - np.repeat(begins, lengths)
    return found
