"""Some queries with their candidates in three orders, as data that the page's script lays out when they come into view."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.corpus.reader import Corpus, look_up_ids
from cprd_pipeline.errors import StoreError
from cprd_pipeline.reporting.inputs import Inputs
from cprd_pipeline.reporting.settings import GallerySettings
from cprd_pipeline.reporting.thumbnails import thumbnails

DIRECTIONS = ("i2t", "t2i")


@dataclass(frozen=True)
class _Item:
    """A candidate or positive of a query: its id, and what the three say of it, in the order of `_orders`."""

    item_id: str
    is_positive: bool
    values: tuple[float, float, float]


def gallery(inputs: Inputs, settings: GallerySettings) -> dict[str, Any]:
    """The gallery's data, JSON types only.

    Returns:
        `orders`: title and note of each; `queries`: direction, id, `shows` (what the query is) and, per order, the place of
        the first positive and the first items as [shows, value, is positive, place in the miner's order]; `images`: data
        URIs. What is shown is a text, or the number of an image.

    Raises:
        StoreError: Evaluation and rankings do not hold the same queries.
    """
    if inputs.rankings["query_id"].to_pylist() != inputs.student_lists["query_id"].to_pylist():
        raise StoreError("the evaluation's lists are not those of the rankings", do="run evaluate again")
    chosen = [row for number in range(len(DIRECTIONS)) for row in _draw(inputs.rankings, number, settings)]
    queries = [_query(inputs, row, settings.shown) for row in chosen]
    images = _number_images(inputs.corpus, queries, settings.thumbnail_pixels)
    return {"orders": _orders(inputs), "queries": queries, "images": images}


def _orders(inputs: Inputs) -> list[dict[str, str]]:
    return [
        {"title": inputs.miner, "note": "mined these"},
        {"title": "teacher", "note": "cross-encoder"},
        {"title": inputs.student, "note": "distilled"},
    ]


def _draw(rankings: pa.Table, number: int, settings: GallerySettings) -> list[int]:
    """Rows of some queries of one direction, in the order of the file."""
    rows = np.flatnonzero(pc.equal(rankings["direction"], DIRECTIONS[number]).to_numpy())
    generator = np.random.default_rng([settings.seed, number])
    chosen = generator.choice(rows, size=min(settings.queries, len(rows)), replace=False)
    return [int(row) for row in np.sort(chosen)]


def _query(inputs: Inputs, row: int, shown: int) -> dict[str, Any]:
    ranking = inputs.rankings.slice(row, 1).to_pylist()[0]
    items = _items(ranking, inputs.student_lists.slice(row, 1).to_pylist()[0])
    orders = [_sorted(items, who) for who in range(3)]
    mined_place = {item.item_id: place for place, item in enumerate(orders[0], start=1)}
    captions_answer = ranking["direction"] == "i2t"
    return {
        "direction": ranking["direction"],
        "id": ranking["query_id"],
        "shows": _shows(inputs.corpus, ranking["query_id"], image=captions_answer),
        "orders": [
            {
                "positive_at": next((place for place, item in enumerate(order, start=1) if item.is_positive), None),
                "items": [
                    [
                        _shows(inputs.corpus, item.item_id, image=not captions_answer),
                        round(item.values[who], 3),
                        item.is_positive,
                        mined_place[item.item_id],
                    ]
                    for item in order[:shown]
                ],
            }
            for who, order in enumerate(orders)
        ],
    }


def _items(ranking: dict[str, Any], student: dict[str, Any]) -> list[_Item]:
    candidates = zip(
        ranking["candidate_ids"],
        zip(ranking["similarities"], ranking["teacher_scores"], student["candidate_similarities"], strict=True),
        strict=True,
    )
    positives = zip(
        ranking["positive_ids"],
        zip(ranking["positive_similarities"], ranking["positive_scores"], student["positive_similarities"], strict=True),
        strict=True,
    )
    return [_Item(item, False, values) for item, values in candidates] + [_Item(item, True, values) for item, values in positives]


def _sorted(items: list[_Item], who: int) -> list[_Item]:
    """Best first; ties count against the model here too: positives after their equals."""
    return sorted(items, key=lambda item: (-item.values[who], item.is_positive, item.item_id))


def _shows(corpus: Corpus, item_id: str, *, image: bool) -> str | int:
    """The caption's text, or the image's row."""
    items = corpus.images if image else corpus.captions
    row = int(look_up_ids(items, [item_id], "rankings")[0])
    return row if image else corpus.texts[row]


def _number_images(corpus: Corpus, queries: list[dict[str, Any]], longest_side: int) -> list[str]:
    """Replace image rows by positions in the list of thumbnails that is returned."""
    shown = [query["shows"] for query in queries]
    shown += [item[0] for query in queries for order in query["orders"] for item in order["items"]]
    found = thumbnails(corpus, {row for row in shown if isinstance(row, int)}, longest_side)
    number = {row: place for place, row in enumerate(found)}
    for query in queries:
        query["shows"] = number.get(query["shows"], query["shows"])
        for order in query["orders"]:
            for item in order["items"]:
                item[0] = number.get(item[0], item[0])
    return list(found.values())
