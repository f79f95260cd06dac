"""What is encoded in a step: the pairs of the batch and, by setting, candidates that were drawn for them.

Shape suffixes: B pairs, M images, N captions, U different contents.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.distillation.batches import BatchRows, PositivePairs
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.loop_settings import Encode
from cprd_pipeline.distillation.pair_table import ScoredLists
from cprd_pipeline.distillation.selection import first_of_each, some_of_each

_DRAW = 41
_I2T, _T2I = 0, 1


class Once(NamedTuple):
    """Items of which some hold the same, each content to be encoded once.

    Args:
        rows: The first corpus row of each content, in the items' order; int64 [U].
        places: For each item the place of its content in `rows`; int64 [M], None where all differ.
    """

    rows: Rows
    places: Rows | None = None


class Meeting(NamedTuple):
    """Corpus rows of the items that meet in a step.

    Args:
        rows: The pairs of the batch.
        images: Of the pairs, then the drawn ones; int64 [M].
        captions: The same, int64 [N].
        image_contents: For each of the images the first corpus row that holds the same; int64 [M]. None encodes every one of them.
        caption_contents: The same for captions; int64 [N].
    """

    rows: BatchRows
    images: Rows
    captions: Rows
    image_contents: Rows | None = None
    caption_contents: Rows | None = None

    @property
    def encoded_images(self) -> Once:
        """What is encoded of the images."""
        return _once(self.images, self.image_contents)

    @property
    def encoded_captions(self) -> Once:
        """What is encoded of the captions."""
        return _once(self.captions, self.caption_contents)


def _once(items: Rows, contents: Rows | None) -> Once:
    if contents is None:
        return Once(items)
    _, first, of = np.unique(contents, return_index=True, return_inverse=True)
    if len(first) == len(items):
        return Once(items)
    order = np.argsort(first)
    return Once(items[first[order]], np.argsort(order)[of])


def in_batch(rows: BatchRows) -> Meeting:
    """The pairs of the batch and nothing else."""
    return Meeting(rows, rows.images, rows.captions)


@runtime_checkable
class PairSource(Protocol):
    """What draws the pairs of a step."""

    @property
    def image_rows(self) -> Rows:
        """All image rows that can occur, int64."""

    def batch(self, step: int) -> BatchRows:
        """The batch of a step, counted from 0."""


class Meetings:
    """What every step of a run encodes; a function of the step alone.

    Args:
        sampler: Draws the pairs.
        draw: Draws candidates for them; None where only the pairs are encoded.
    """

    def __init__(self, sampler: PairSource, draw: "CandidateDraw | None" = None) -> None:
        self._sampler = sampler
        self._draw = draw

    @property
    def image_rows(self) -> Rows:
        """All image rows that can occur, int64."""
        rows = self._sampler.image_rows
        return rows if self._draw is None else np.union1d(rows, self._draw.image_rows)

    def at(self, step: int) -> Meeting:
        """What a step encodes, counted from 0."""
        rows = self._sampler.batch(step)
        return in_batch(rows) if self._draw is None else self._draw.meeting(rows, step)


class CandidateDraw:
    """Draws candidates of a batch's queries to be encoded with it, each content once and none that the batch has.

    The batch itself may have one twice, where two unpaired queries drew the same partner: it is encoded once too.

    Args:
        settings: How many.
        knowledge: The rankings' content.
        positives: Annotated pairs, which are no candidates.
        seed: Of all draws.
    """

    def __init__(self, settings: Encode, knowledge: TeacherKnowledge, positives: PositivePairs, seed: int) -> None:
        self._settings = settings
        self._knowledge = knowledge
        self._positives = positives
        self._seed = seed

    @property
    def image_rows(self) -> Rows:
        """Image rows that can be drawn, int64."""
        return np.flatnonzero(self._knowledge.lists("t2i").named)

    def meeting(self, rows: BatchRows, step: int) -> Meeting:
        """The batch with some candidates of each of its queries; a function of the seed, the step and the batch."""
        told = self._knowledge
        images, captions = told.canonical_image[rows.images], told.canonical_caption[rows.captions]
        of_images = self._drawn(told.lists("i2t"), images, step, _I2T)
        of_captions = self._drawn(told.lists("t2i"), captions, step, _T2I)
        # What is drawn is the first row of its content.
        more_images, more_captions = np.setdiff1d(of_captions, images), np.setdiff1d(of_images, captions)
        return Meeting(
            rows,
            np.concatenate([rows.images, more_images]),
            np.concatenate([rows.captions, more_captions]),
            np.concatenate([images, more_images]),
            np.concatenate([captions, more_captions]),
        )

    def _drawn(self, table: ScoredLists, queries: Rows, step: int, direction: int) -> Rows:
        """Canonical rows of the drawn items, with repetitions."""
        listed = table.of(queries)
        asked = queries[listed.owner]
        pairs = (asked, listed.items) if direction == _I2T else (listed.items, asked)
        candidate = np.flatnonzero(~self._positives.are(*pairs))
        candidate = candidate[first_of_each(listed.owner[candidate], self._settings.among)]
        random = np.random.default_rng([self._seed, _DRAW, step, direction])
        chosen = candidate[some_of_each(listed.owner[candidate], self._settings.candidates, random)]
        drawn: Rows = listed.items[chosen].astype(np.int64)
        return drawn
