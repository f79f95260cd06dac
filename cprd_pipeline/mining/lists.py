"""Lists of items of several queries, end to end. Shape suffixes: N items of all lists, Q queries, R = len(FILTERS)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from cprd_pipeline.mining.filters import PASSED, Filters
from cprd_pipeline.mining.search import Search, TopItems
from cprd_pipeline.mining.walk import Askers
from cprd_pipeline.store.schemas import CANDIDATE_FILTERS as FILTERS

_SAME_TEXT = FILTERS.index("same_text")


@dataclass(frozen=True)
class Lists:
    """By query, and within one by (similarity descending, position ascending).

    Args:
        owners: Query of each item, ascending.
        items: Position of each one's content.
        similarities: With the query.
    """

    owners: Int64[np.ndarray, " N"]
    items: Int64[np.ndarray, " N"]
    similarities: Float32[np.ndarray, " N"]

    def take(self, chosen: Bool[np.ndarray, " N"]) -> "Lists":
        """The chosen items."""
        return Lists(self.owners[chosen], self.items[chosen], self.similarities[chosen])

    def order(self) -> Int64[np.ndarray, " N"]:
        """What puts items into the order of the class."""
        return np.asarray(np.lexsort((self.items, -self.similarities, self.owners)))


def flatten(top: TopItems) -> Lists:
    """The items of a rectangular table."""
    owners, columns = np.nonzero(np.arange(top.positions.shape[1]) < top.counts[:, None])
    return Lists(owners, top.positions[owners, columns], top.similarities[owners, columns])


@dataclass(frozen=True)
class Judged:
    """Items that were named, not found.

    Args:
        lists: Those that passed, in order.
        origin: Place of each of them among the named items.
        dropped: Named items that each filter kept out, int64 [Q, R].
    """

    lists: Lists
    origin: Int64[np.ndarray, " N"]
    dropped: Int64[np.ndarray, "Q R"]


def judge(
    owners: Int64[np.ndarray, " M"], items: Int64[np.ndarray, " M"], askers: Askers, search: Search, filters: Filters
) -> Judged:
    """Compute the similarities of named items, and let the filters decide, ranks aside.

    Args:
        owners: Query of each item.
        items: Distinct within a query.
        askers: The queries.
        search: Computes similarities.
        filters: Of the direction.
    """
    named = Lists(owners, items, search.similarities(askers.vectors, owners, items))
    verdicts = filters.verdicts(askers.contents[owners], items, named.similarities, askers.lowest[owners])
    order = named.order()
    order = order[verdicts[order] == PASSED]
    copies = filters.copies(owners[order], items[order])
    verdicts[order[copies]] = _SAME_TEXT
    objected = verdicts != PASSED
    codes = owners[objected] * len(FILTERS) + verdicts[objected]
    count = len(askers.contents)
    dropped = np.bincount(codes, minlength=count * len(FILTERS)).reshape(count, len(FILTERS))
    origin = order[~copies]
    return Judged(Lists(owners[origin], items[origin], named.similarities[origin]), origin, dropped)
