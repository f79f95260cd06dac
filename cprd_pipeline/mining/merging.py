"""Candidates of earlier rounds beside those of this one. Shape suffixes: N items of all lists, Q queries."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from cprd_pipeline.mining.earlier import EarlierItems
from cprd_pipeline.mining.filters import Filters, later_copies
from cprd_pipeline.mining.lists import Lists, judge
from cprd_pipeline.mining.search import Search
from cprd_pipeline.mining.walk import Askers


@dataclass(frozen=True)
class Merged:
    """Lists of several rounds in one.

    Args:
        lists: In order of this round's similarities.
        added: Items of each query that only earlier rounds have.
        dropped: Earlier items of each query that this round's filters keep out.
    """

    lists: Lists
    added: Int64[np.ndarray, " Q"]
    dropped: Int64[np.ndarray, " Q"]


def merge(fresh: Lists, earlier: Sequence[EarlierItems], askers: Askers, search: Search, filters: Filters) -> Merged:
    """Add what earlier rounds have and this one has not, with this round's similarities.

    This round's filters apply to the added items too, ranks aside: an item's rank is known only where it was fetched.

    Args:
        fresh: This round's lists.
        earlier: Those of earlier rounds.
        askers: The queries.
        search: Computes similarities.
        filters: Of the direction.
    """
    owners = np.concatenate([fresh.owners, *(round_.owners for round_ in earlier)])
    items = np.concatenate([fresh.items, *(round_.items for round_ in earlier)])
    new = ~later_copies(owners, items)
    new[: len(fresh.owners)] = False
    judged = judge(owners[new], items[new], askers, search, filters)
    both = Lists(
        np.concatenate([fresh.owners, judged.lists.owners]),
        np.concatenate([fresh.items, judged.lists.items]),
        np.concatenate([fresh.similarities, judged.lists.similarities]),
    )
    # Of captions with the same text this round's stays.
    copies = filters.copies(both.owners, both.items)
    count = len(askers.contents)
    added = np.bincount(judged.lists.owners[~copies[len(fresh.owners) :]], minlength=count)
    dropped = judged.dropped.sum(axis=1) + np.bincount(both.owners[copies], minlength=count)
    kept = both.take(~copies)
    order = kept.order()
    return Merged(Lists(kept.owners[order], kept.items[order], kept.similarities[order]), added, dropped)
