"""What the queries of a step meet in the bank: their own best candidates, and random items as easy negatives.

Shape suffixes: Q queries, K candidates of each, E easy items, D width.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.distillation.bank import NEVER, FeatureBank
from cprd_pipeline.distillation.batches import PositivePairs
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.loop_settings import Bank
from cprd_pipeline.distillation.meeting import Meeting
from cprd_pipeline.distillation.ranking_parts import Direction
from cprd_pipeline.distillation.selection import first_of_each, places

_EASY = 43


class BankItems(NamedTuple):
    """Items of the bank for the queries of one direction.

    Args:
        easy: Canonical rows that all queries have in common; int64 [E].
        own: Canonical rows of each query's best candidates, -1 where it has fewer; int64 [Q, K].
        scores_QK: Their teacher scores, NaN where there is none; float32.
    """

    easy: Rows
    own: Rows
    scores_QK: npt.NDArray[np.float32]


class BankFeatures(NamedTuple):
    """The features of `BankItems`; zeros where a query has fewer candidates."""

    easy_ED: Float[Tensor, "E D"]
    own_QKD: Float[Tensor, "Q K D"]


class BankDraw:
    """Finds what a batch meets in the bank.

    Args:
        settings: How much.
        easy: Random items for all queries; 0 where easy negatives do not come from the bank.
        knowledge: The rankings' content.
        positives: Annotated pairs, which are no candidates.
        seed: Of the random items.
    """

    def __init__(self, settings: Bank, easy: int, knowledge: TeacherKnowledge, positives: PositivePairs, seed: int) -> None:
        self._settings = settings
        self._easy = easy
        self._knowledge = knowledge
        self._positives = positives
        self._seed = seed

    def items(self, direction: Direction, bank: FeatureBank, meeting: Meeting, step: int) -> BankItems:
        """Candidates and random items that the bank holds and the batch does not.

        Args:
            direction: Who asks.
            bank: Of the other side.
            meeting: The step's batch.
            step: Steps done.
        """
        told = self._knowledge
        images, captions = told.canonical_image[meeting.images], told.canonical_caption[meeting.captions]
        asking, present = (images, captions) if direction == "i2t" else (captions, images)
        random = np.random.default_rng([self._seed, _EASY, step, direction == "t2i"])
        elsewhere = bank.held()
        elsewhere[present] = False
        easy = np.empty(0, dtype=np.int64)
        if self._easy:
            found = np.flatnonzero(elsewhere)
            easy = np.sort(random.choice(found, min(self._easy, len(found)), replace=False))
            elsewhere[easy] = False
        return self._own(direction, asking[: len(meeting.rows.images)], elsewhere, easy)

    def _own(self, direction: Direction, asking: Rows, elsewhere: npt.NDArray[np.bool_], easy: Rows) -> BankItems:
        listed = self._knowledge.lists(direction).of(asking)
        asked = asking[listed.owner]
        pairs = (asked, listed.items) if direction == "i2t" else (listed.items, asked)
        found = np.flatnonzero(elsewhere[listed.items])
        found = found[~self._positives.are(pairs[0][found], pairs[1][found])]
        found = found[first_of_each(listed.owner[found], self._settings.candidates)]
        owners = listed.owner[found]
        shape = (len(asking), self._settings.candidates)
        own, scores = np.full(shape, NEVER, dtype=np.int64), np.full(shape, np.nan, dtype=np.float32)
        at = (owners, places(owners))
        own[at], scores[at] = listed.items[found], listed.scores[found]
        return BankItems(easy, own, scores)


def bank_features(bank: FeatureBank, items: BankItems, device: torch.device, dtype: torch.dtype) -> BankFeatures:
    """Features of what a batch meets in the bank.

    Args:
        bank: Of the items' side.
        items: From `BankDraw`.
        device: Where the loss is computed.
        dtype: Of the loss.
    """
    there = items.own != NEVER
    own_QKD = torch.zeros(*there.shape, bank.width, dtype=torch.float16)
    own_QKD[torch.from_numpy(there)] = bank.take(items.own[there])
    return BankFeatures(bank.take(items.easy).to(device, dtype), own_QKD.to(device, dtype))
