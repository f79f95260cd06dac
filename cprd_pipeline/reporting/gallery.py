"""Some queries with their candidates in three orders, as data that the page's script lays out when they come into view."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from cprd_pipeline.corpus.reader import look_up_ids
from cprd_pipeline.reporting.directions import DIRECTIONS
from cprd_pipeline.reporting.filters import filters
from cprd_pipeline.reporting.inputs import Inputs
from cprd_pipeline.reporting.lists import TEACHER, Lists
from cprd_pipeline.reporting.selection import groups_of, select
from cprd_pipeline.reporting.settings import GallerySettings
from cprd_pipeline.reporting.thumbnails import thumbnails
from cprd_pipeline.reporting.verdicts import Verdicts

POSITIVE, ABOVE = 1, 2
"""Marks of an item: an annotated positive; a candidate that the teacher scores above every positive."""


def gallery(inputs: Inputs, lists: Lists, verdicts: Verdicts, settings: GallerySettings) -> dict[str, Any]:
    """The gallery's data, JSON types only.

    Args:
        inputs: Of the run.
        lists: `lists_of` its rankings.
        verdicts: On each query.
        settings: Which and how much.

    Returns:
        `orders`: title and note of each; `shown`: how far an order is shown; `texts` and `images` (data URIs), each
        once; `filters`: as the function of that name makes them; `queries`: direction, id, number of what asks, the best
        positive's ranks by miner and student, agreement, excess, and `items`: number of what it is, marks, three values,
        three places. What asks is an image for `i2t` and a text for `t2i`; the items are the other.
    """
    groups = groups_of(verdicts)
    taken = select(verdicts, groups, settings)
    rows = sorted(row for found in taken.values() for row in found)
    table = _Contents(inputs)
    queries = [_query(inputs, lists, verdicts, row, settings.shown, table) for row in rows]
    return {
        "orders": _orders(inputs),
        "shown": settings.shown,
        "filters": filters(inputs, verdicts, groups, taken, rows),
        "queries": queries,
        "texts": [inputs.corpus.texts[row] for row in table.rows[1]],
        "images": table.images(settings.thumbnail_pixels),
    }


def _orders(inputs: Inputs) -> list[dict[str, str]]:
    return [
        {"title": inputs.miner, "note": "mined these"},
        {"title": "teacher", "note": "cross-encoder"},
        {"title": inputs.student, "note": "distilled" if inputs.student != inputs.miner else "the same"},
    ]


class _Contents:
    """Numbers the images and texts that are shown, in the order in which they are first needed."""

    def __init__(self, inputs: Inputs) -> None:
        self._corpus = inputs.corpus
        self.rows: tuple[dict[int, int], dict[int, int]] = ({}, {})

    def number(self, item_id: str, kind: int) -> int:
        """Of an item, by its id.

        Args:
            item_id: In the corpus.
            kind: 0 for an image, 1 for a caption.
        """
        items = (self._corpus.images, self._corpus.captions)[kind]
        row = int(look_up_ids(items, [item_id], "rankings")[0])
        return self.rows[kind].setdefault(row, len(self.rows[kind]))

    def images(self, longest_side: int) -> list[str]:
        """Data URIs of the numbered images, by number."""
        found = thumbnails(self._corpus, self.rows[0], longest_side)
        return [found[row] for row in self.rows[0]]


def _query(inputs: Inputs, lists: Lists, verdicts: Verdicts, row: int, shown: int, table: _Contents) -> dict[str, Any]:
    kind = int(verdicts.direction[row])
    ranking = inputs.rankings.slice(row, 1).to_pylist()[0]
    ids = ranking["candidate_ids"] + ranking["positive_ids"]
    here = lists.items(row)
    places, values = lists.places[:, here], lists.values[:, here]
    above = _above_every_positive(values[TEACHER], lists.is_positive[here])
    items = []
    for item in np.flatnonzero((places <= shown).any(axis=0)):
        marks = POSITIVE * bool(lists.is_positive[here][item]) + ABOVE * bool(above[item])
        rounded = [round(float(value), 3) for value in values[:, item]]
        items.append([table.number(ids[item], 1 - kind), marks, *rounded, *places[:, item].tolist()])
    return {
        "direction": DIRECTIONS[kind],
        "id": ranking["query_id"],
        "asks": table.number(ranking["query_id"], kind),
        "ranks": [int(verdicts.miner_rank[row]), int(verdicts.student_rank[row])],
        "agreement": _finite(verdicts.agreement[row]),
        "excess": _finite(verdicts.excess[row]),
        "items": items,
    }


def _above_every_positive(scores: Float32[np.ndarray, " N"], is_positive: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Which items of a list score higher than its best positive; none when it has no positive."""
    return scores > scores[is_positive].max(initial=-np.inf) if is_positive.any() else np.zeros(len(scores), dtype=np.bool_)


def _finite(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
