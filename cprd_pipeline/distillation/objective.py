"""The whole training loss of one batch: contrastive, plus the distillation loss of both directions.

Shape suffixes: B pairs of the batch; rows of a matrix are images, columns captions.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.distillation.batches import BatchRows
from cprd_pipeline.distillation.knowledge import BatchKnowledge, ListRules, TeacherKnowledge, teacher_lists
from cprd_pipeline.distillation.losses.cprd import cprd_loss
from cprd_pipeline.distillation.losses.itc import itc_loss
from cprd_pipeline.distillation.losses.kl import kl_loss
from cprd_pipeline.distillation.losses.lists import TeacherLists
from cprd_pipeline.distillation.settings import DistillSettings


class LossParts(NamedTuple):
    """The loss and its two unweighted parts; distillation is 0 where it does not take part."""

    total: Float[Tensor, ""]
    contrastive: Float[Tensor, ""]
    distillation: Float[Tensor, ""]


class Objective:
    """L = contrastive_weight * L_ITC + distillation_weight * L_distill, each the mean of its two directions.

    Args:
        settings: Which objective, weights and temperatures.
        knowledge: The rankings' content; None for the contrastive loss alone.
    """

    def __init__(self, settings: DistillSettings, knowledge: TeacherKnowledge | None) -> None:
        self._settings = settings
        self._knowledge = knowledge

    def __call__(
        self,
        similarities_BB: Float[Tensor, "B B"],
        scale: Float[Tensor, ""],
        rows: BatchRows,
        positive_BB: npt.NDArray[np.bool_],
        step: int,
    ) -> LossParts:
        """The loss of a batch.

        Args:
            similarities_BB: Cosine of image i and caption j, in [-1, 1].
            scale: The contrastive loss's inverse temperature.
            rows: Corpus rows of the batch.
            positive_BB: Annotated pairs of the batch.
            step: Steps done; distillation begins at `distillation_from_step`.
        """
        known = self._knowledge.among(rows) if self._knowledge else None
        excluded_BB = torch.from_numpy(positive_BB | known.flagged if known else positive_BB).to(scale.device)
        logits_BB = similarities_BB * scale
        contrastive = (itc_loss(logits_BB, excluded_BB) + itc_loss(logits_BB.T, excluded_BB.T)) / 2
        distillation = torch.zeros_like(contrastive)
        if known is not None and step >= self._settings.distillation_from_step:
            distillation = self._distillation(similarities_BB, scale, rows, positive_BB, known)
        total = self._settings.contrastive_weight * contrastive + self._settings.distillation_weight * distillation
        return LossParts(total, contrastive, distillation)

    def _distillation(
        self,
        similarities_BB: Tensor,
        scale: Tensor,
        rows: BatchRows,
        positive_BB: npt.NDArray[np.bool_],
        known: BatchKnowledge,
    ) -> Float[Tensor, ""]:
        assert self._knowledge is not None
        rules = self._rules()
        i2t = teacher_lists(known.i2t, positive_BB, self._knowledge.image_cutoffs[rows.images], rules)
        t2i = teacher_lists(known.t2i, positive_BB.T, self._knowledge.caption_cutoffs[rows.captions], rules)
        loss = self._one_direction(similarities_BB, scale, i2t) + self._one_direction(similarities_BB.T, scale, t2i)
        return loss / 2

    def _one_direction(self, similarities_BB: Tensor, scale: Tensor, lists: TeacherLists) -> Float[Tensor, ""]:
        lists = lists.to(scale.device)
        if self._settings.objective == "cprd":
            cprd = self._settings.cprd
            return cprd_loss(similarities_BB * scale, lists, cprd.weights, cprd.teacher_temperature)
        kl = self._settings.kl
        own_scale = scale if kl.student_temperature is None else 1 / kl.student_temperature
        return kl_loss(similarities_BB * own_scale, lists, kl.teacher_temperature)

    def _rules(self) -> ListRules:
        if self._settings.objective == "cprd":
            cprd = self._settings.cprd
            return ListRules(cprd.valid, cprd.positive_in_list, cprd.easy_negatives)
        return ListRules("listed", self._settings.kl.positive_in_list, self._settings.kl.easy_negatives)
