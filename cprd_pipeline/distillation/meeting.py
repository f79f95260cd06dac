"""What is encoded in a step: the pairs of the batch and, by setting, candidates that were drawn for them.

Shape suffixes: B pairs, M images, N captions.
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


class Meeting(NamedTuple):
    """Corpus rows of the items that a step encodes.

    Args:
        rows: The pairs of the batch.
        images: Of the pairs, then the drawn ones; int64 [M].
        captions: The same, int64 [N].
    """

    rows: BatchRows
    images: Rows
    captions: Rows


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

    The batch itself may have one twice: where two unpaired queries drew the same partner.

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
        return Meeting(
            rows,
            np.concatenate([rows.images, np.setdiff1d(of_captions, images)]),
            np.concatenate([rows.captions, np.setdiff1d(of_images, captions)]),
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
