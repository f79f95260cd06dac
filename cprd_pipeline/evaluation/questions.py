"""What a split asks of a model: its queries, the items they choose from, and the right answers."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Corpus, Items, Rows, Split
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.metrics.folds import home_images
from cprd_pipeline.metrics.positives import Positives

Direction = Literal["i2t", "t2i"]
DIRECTIONS: tuple[Direction, ...] = ("i2t", "t2i")


@dataclass(frozen=True)
class Questions:
    """One direction of a split.

    Args:
        direction: `i2t`: images ask for captions; `t2i`: captions ask for images.
        queries: The side that asks.
        items: The side that is asked for.
        asked: Rows in `queries` of the split's queries with at least one positive, ascending; int64 [Q].
        query_rows: Rows in `queries` of the whole split, ascending; int64.
        item_rows: Rows in `items` of the whole split, ascending; int64 [N].
        positives: Right answers of the Q asked queries, as positions in `item_rows`.
        groups: Image of the split, by position, that each asked query is about; int64 [Q].
    """

    direction: Direction
    queries: Items
    items: Items
    asked: Rows
    query_rows: Rows
    item_rows: Rows
    positives: Positives
    groups: Rows

    @property
    def asked_places(self) -> Rows:
        """Positions of the asked queries in `query_rows`; int64 [Q]."""
        return np.searchsorted(self.query_rows, self.asked)

    def orient(self, image_by_caption: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A matrix of the split's images by its captions, turned so that the asked queries are its rows."""
        by_query = image_by_caption if self.direction == "i2t" else image_by_caption.T
        return by_query[self.asked_places]


def split_positives(split: Split) -> Positives:
    """Captions of each image of a split, by position in the split; images without one included."""
    pairs = np.stack(
        [np.searchsorted(split.images, split.positives[:, 0]), np.searchsorted(split.captions, split.positives[:, 1])], axis=1
    )
    return Positives.from_pairs(pairs, len(split.images), len(split.captions))


def questions_of(corpus: Corpus, split: Split, direction: Direction) -> Questions:
    """The questions of one direction; queries without a positive are not asked.

    Raises:
        CorpusError: No query of the split has a positive.
    """
    if not len(split.positives):
        raise CorpusError(
            f"{corpus.path}: split {split.name!r} has no positives",
            expected="pairs of an image and a caption that describes it",
            do="choose another split, or prepare the corpus from annotations that hold pairs",
        )
    sides = [(corpus.images, split.images, split.positives[:, 0]), (corpus.captions, split.captions, split.positives[:, 1])]
    (queries, query_rows, query_of_pair), (items, item_rows, item_of_pair) = sides if direction == "i2t" else sides[::-1]
    asked = np.unique(query_of_pair)
    pairs = np.stack([np.searchsorted(asked, query_of_pair), np.searchsorted(item_rows, item_of_pair)], axis=1)
    positives = Positives.from_pairs(pairs, len(asked), len(item_rows))
    groups = np.arange(len(split.images)) if direction == "i2t" else home_images(split_positives(split))
    return Questions(direction, queries, items, asked, query_rows, item_rows, positives, groups[np.searchsorted(query_rows, asked)])
