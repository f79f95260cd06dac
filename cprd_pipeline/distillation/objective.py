"""The whole training loss of one batch: contrastive, plus the distillation loss of both directions.

Shape suffixes: B pairs of the batch; rows of a matrix are images, columns captions.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cprd_pipeline.distillation.batches import BatchRows
from cprd_pipeline.distillation.knowledge import BatchKnowledge, TeacherKnowledge, teacher_lists
from cprd_pipeline.distillation.losses.itc import itc_loss
from cprd_pipeline.distillation.losses.lists import TeacherLists
from cprd_pipeline.distillation.losses.shuffle import shuffle_keys, shuffle_teacher
from cprd_pipeline.distillation.losses.sigmoid import sigmoid_loss
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.teacher_loss import list_rules, teacher_loss

_I2T, _T2I = 0, 1


class LossParts(NamedTuple):
    """The loss and its two unweighted parts; distillation is 0 where it does not take part."""

    total: Float[Tensor, ""]
    contrastive: Float[Tensor, ""]
    distillation: Float[Tensor, ""]


class Objective:
    """L = contrastive_weight * L_contrastive + distillation_weight * L_distill, each the mean of its two directions.

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
        bias: Float[Tensor, ""] | None = None,
    ) -> LossParts:
        """The loss of a batch, in float32 or float64 also under autocast.

        Args:
            similarities_BB: Cosine of image i and caption j, in [-1, 1].
            scale: The contrastive loss's inverse temperature.
            rows: Corpus rows of the batch.
            positive_BB: Annotated pairs of the batch.
            step: Steps done; distillation begins at `distillation_from_step`.
            bias: Added to the logits of the sigmoid loss; None fixes it at `sigmoid_bias`.
        """
        similarities_BB = similarities_BB.to(torch.promote_types(similarities_BB.dtype, torch.float32))
        known = self._knowledge.among(rows) if self._knowledge else None
        excluded_BB = torch.from_numpy(positive_BB | known.flagged if known else positive_BB).to(scale.device)
        contrastive = self._contrastive(similarities_BB * scale, excluded_BB, bias)
        distillation = torch.zeros_like(contrastive)
        if known is not None and step >= self._settings.distillation_from_step:
            i2t, t2i = (lists.to(scale.device) for lists in self._lists(rows, positive_BB, known, step))
            of_images = teacher_loss(self._settings, similarities_BB, scale, i2t)
            distillation = (of_images + teacher_loss(self._settings, similarities_BB.T, scale, t2i)) / 2
        total = self._settings.contrastive_weight * contrastive + self._settings.distillation_weight * distillation
        return LossParts(total, contrastive, distillation)

    def _contrastive(
        self, logits_BB: Float[Tensor, "B B"], excluded_BB: Bool[Tensor, "B B"], bias: Tensor | None
    ) -> Float[Tensor, ""]:
        if self._settings.contrastive == "sigmoid":
            return sigmoid_loss(logits_BB + (self._settings.sigmoid_bias if bias is None else bias), excluded_BB)
        return (itc_loss(logits_BB, excluded_BB) + itc_loss(logits_BB.T, excluded_BB.T)) / 2

    def _lists(
        self, rows: BatchRows, positive_BB: npt.NDArray[np.bool_], known: BatchKnowledge, step: int
    ) -> tuple[TeacherLists, TeacherLists]:
        """The teacher's knowledge for the images and for the captions of the batch, on the CPU."""
        assert self._knowledge is not None
        rules, seed = list_rules(self._settings), self._settings.seed
        i2t = teacher_lists(known.i2t, positive_BB, self._knowledge.image_cutoffs[rows.images], rules)
        t2i = teacher_lists(known.t2i, positive_BB.T, self._knowledge.caption_cutoffs[rows.captions], rules)
        if self._settings.shuffle_teacher:
            i2t = shuffle_teacher(i2t, shuffle_keys(seed, step, _I2T, rows.images, rows.captions))
            t2i = shuffle_teacher(t2i, shuffle_keys(seed, step, _T2I, rows.captions, rows.images))
        return i2t, t2i
