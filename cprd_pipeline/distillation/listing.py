"""From the rankings and a step's batch to what the losses are given: who is excluded, who is listed, what the teacher said.

Shape suffixes: B pairs of the batch, Q queries, N items that all queries of a direction have in common, K of their own.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cprd_pipeline.corpus.reader import Rows, Split
from cprd_pipeline.distillation.bank_items import BankItems
from cprd_pipeline.distillation.batches import BatchRows, Contents, PositivePairs
from cprd_pipeline.distillation.knowledge import KnownPairs, TeacherKnowledge
from cprd_pipeline.distillation.losses.lists import TeacherLists
from cprd_pipeline.distillation.losses.shuffle import shuffle_keys, shuffle_teacher
from cprd_pipeline.distillation.meeting import Meeting
from cprd_pipeline.distillation.ranking_parts import Direction
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.teacher_loss import ListRules, list_rules

_I2T, _T2I = 0, 1


class BatchLists(NamedTuple):
    """What the losses of a step are given.

    Args:
        excluded_BB: Pairs of image i and caption j that are no contrastive negatives.
        paired_B: Whether image i and caption i count as a positive pair.
        i2t: The teacher's lists of the images; None where no teacher takes part.
        t2i: Those of the captions.
    """

    excluded_BB: Bool[Tensor, "B B"]
    paired_B: Bool[Tensor, " B"]
    i2t: TeacherLists | None
    t2i: TeacherLists | None

    def to(self, device: torch.device) -> "BatchLists":
        """The same on a device."""
        lists = [None if one is None else one.to(device) for one in (self.i2t, self.t2i)]
        return BatchLists(self.excluded_BB.to(device), self.paired_B.to(device), *lists)


class _Told(NamedTuple):
    """What the queries of one direction are told about the items that they have in common."""

    items: Rows
    known: KnownPairs
    positive_QN: npt.NDArray[np.bool_]


class Listing:
    """Makes the lists of batches.

    Args:
        settings: Which objective, with which rules.
        knowledge: The rankings' content; None for the contrastive loss alone.
        positives: Annotated pairs.
    """

    def __init__(self, settings: DistillSettings, knowledge: TeacherKnowledge | None, positives: PositivePairs) -> None:
        self._settings = settings
        self._knowledge = knowledge
        self._positives = positives

    def of(self, meeting: Meeting, step: int, banked: tuple[BankItems, BankItems] | None = None) -> BatchLists:
        """The lists of one batch, on the CPU.

        Args:
            meeting: What the step encodes.
            step: Steps done; the control's shuffling differs by it.
            banked: What images and captions that ask meet in the bank.
        """
        rows, size = meeting.rows, len(meeting.rows.images)
        paired_B = torch.from_numpy(rows.paired)
        if self._knowledge is None:
            return BatchLists(torch.from_numpy(self._positives.known(rows.images, rows.captions)), paired_B, None, None)
        i2t, t2i = self._told(meeting, banked)
        # Both are symmetric: what is a positive of the image, or flagged for it, is so for the caption.
        excluded_BB = (i2t.positive_QN | i2t.known.flagged_QN)[:, :size]
        lists = [self._lists(side, told, meeting, step, banked) for side, told in ((_I2T, i2t), (_T2I, t2i))]
        return BatchLists(torch.from_numpy(excluded_BB), paired_B, *lists)

    def _told(self, meeting: Meeting, banked: tuple[BankItems, BankItems] | None) -> tuple["_Told", "_Told"]:
        """What images that ask are told about the step's captions and the bank's easy ones; and the reverse."""
        assert self._knowledge is not None
        knowledge, rows = self._knowledge, meeting.rows
        images, captions = (meeting.images, meeting.captions)
        if banked is not None:
            captions, images = (np.concatenate([items, one.easy]) for items, one in zip((captions, images), banked, strict=True))
        i2t = _Told(captions, self._known("i2t", rows.images, captions), self._positive(rows, rows.images, captions))
        if len(images) == len(captions) == len(rows.images) and knowledge.told_captions is None:
            # Nothing but the batch: one look-up serves both directions.
            return i2t, _Told(images, i2t.known.turned, i2t.positive_QN.T)
        return i2t, _Told(images, self._known("t2i", rows.captions, images), self._positive(rows, images, rows.captions).T)

    def _known(self, direction: Direction, queries: Rows, items: Rows) -> KnownPairs:
        """What queries are told; flagged by either side, as a match is one whoever asks."""
        assert self._knowledge is not None
        sides = (self._knowledge.i2t_scores, self._knowledge.t2i_scores)
        own, other = sides if direction == "i2t" else sides[::-1]
        told = own(queries, items)
        if self._knowledge.told_captions is None:
            return told
        return KnownPairs(told.scores_QN, told.flagged_QN | other(items, queries).flagged_QN.T)

    def _positive(self, rows: BatchRows, images: Rows, captions: Rows) -> npt.NDArray[np.bool_]:
        """Pairs that are annotated or drawn as positives of the batch, under every id of their contents; image by caption."""
        assert self._knowledge is not None
        annotated = self._positives.known(images, captions)
        drawn = rows.paired & ~self._positives.are(rows.images, rows.captions)
        if not drawn.any():
            return annotated
        contents = Contents(self._knowledge.canonical_image, self._knowledge.canonical_caption)
        pairs = np.stack([rows.images, rows.captions], axis=1)[drawn]
        return annotated | PositivePairs(Split("batch", pairs[:, 0], pairs[:, 1], pairs), len(contents.captions), contents).known(
            images, captions
        )

    def _lists(
        self, side: int, told: "_Told", meeting: Meeting, step: int, banked: tuple[BankItems, BankItems] | None
    ) -> TeacherLists:
        assert self._knowledge is not None
        asking = meeting.rows.images if side == _I2T else meeting.rows.captions
        cutoffs_Q = (self._knowledge.image_cutoffs if side == _I2T else self._knowledge.caption_cutoffs)[asking]
        own = None if banked is None else banked[side]
        rules = list_rules(self._settings)
        lists = teacher_lists(told.known, told.positive_QN, cutoffs_Q, meeting.rows.paired, rules, own)
        if self._settings.shuffle_teacher:
            return shuffle_teacher(lists, self._keys(side, step, asking, told.items, own))
        return lists

    def _keys(self, side: int, step: int, asking: Rows, items: Rows, banked: BankItems | None) -> Int[Tensor, "Q N"]:
        columns = np.broadcast_to(items, (len(asking), len(items)))
        columns = columns if banked is None else np.concatenate([columns, banked.own], axis=1)
        return shuffle_keys(self._settings.seed, step, side, asking, columns)


def teacher_lists(
    known: KnownPairs,
    positive_QN: npt.NDArray[np.bool_],
    cutoffs_Q: npt.NDArray[np.float32],
    paired_Q: npt.NDArray[np.bool_],
    rules: ListRules,
    banked: BankItems | None = None,
) -> TeacherLists:
    """The lists of one direction: rows are queries; columns the items of the step, then each query's own from the bank.

    Args:
        known: Teacher's word on the pairs, queries as rows.
        positive_QN: Positives; never listed, but for item i of query i when the rules say so.
        cutoffs_Q: `valid_cutoff` of each query, infinite where none is valid.
        paired_Q: Whether item i is a positive of query i, annotated or drawn.
        rules: Settings.
        banked: What the queries meet in the bank; its easy items are among the columns of `known`.
    """
    scored_QN = ~np.isnan(known.scores_QN)
    own_QN = np.eye(*scored_QN.shape, dtype=np.bool_) & paired_Q[:, None] & scored_QN & rules.positive_in_list
    candidate_QN = scored_QN & ~positive_QN
    easy_QN = ~scored_QN & ~positive_QN & ~known.flagged_QN & (rules.easy_negatives != "none")
    scores_QN = np.nan_to_num(known.scores_QN)
    if banked is not None:
        in_bank, none = ~np.isnan(banked.scores_QK), np.zeros(banked.scores_QK.shape, dtype=np.bool_)
        scores_QN = np.concatenate([scores_QN, np.nan_to_num(banked.scores_QK)], axis=1)
        candidate_QN = np.concatenate([candidate_QN, in_bank], axis=1)
        own_QN, easy_QN = np.concatenate([own_QN, none], axis=1), np.concatenate([easy_QN, none], axis=1)
    valid_QN = candidate_QN if rules.valid == "listed" else candidate_QN & (scores_QN >= cutoffs_Q[:, None])
    arrays = (scores_QN, candidate_QN | own_QN, valid_QN | own_QN, easy_QN)
    return TeacherLists(*(torch.from_numpy(array) for array in arrays))
