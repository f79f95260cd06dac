"""The whole training loss of one batch: contrastive, plus the distillation loss of both directions.

Shape suffixes: B pairs of the batch; M images, N captions that were encoded, the batch's first; E easy items and K
candidates of each query from the bank; D width.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cprd_pipeline.distillation.bank_items import BankFeatures
from cprd_pipeline.distillation.listing import BatchLists
from cprd_pipeline.distillation.losses.itc import itc_loss
from cprd_pipeline.distillation.losses.sigmoid import sigmoid_loss
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.teacher_loss import teacher_loss


class LossParts(NamedTuple):
    """The loss and its two unweighted parts; distillation is 0 where it does not take part."""

    total: Float[Tensor, ""]
    contrastive: Float[Tensor, ""]
    distillation: Float[Tensor, ""]


class Similarities(NamedTuple):
    """Cosines of one batch, float32 or float64.

    Args:
        i2t: Of the batch's images with the captions of the step, then those of the bank; [B, N + E + K].
        t2i: Of the batch's captions with the images; [B, M + E + K].
    """

    i2t: Float[Tensor, "B _"]
    t2i: Float[Tensor, "B _"]


def compare(
    images_MD: Float[Tensor, "M D"],
    captions_ND: Float[Tensor, "N D"],
    size: int,
    banked: tuple[BankFeatures, BankFeatures] | None = None,
) -> Similarities:
    """Similarities of a batch from its features.

    Args:
        images_MD: Vectors of length one.
        captions_ND: The same.
        size: B.
        banked: Captions and images of the bank.
    """
    if len(images_MD) == len(captions_ND) == size:
        i2t = images_MD @ captions_ND.T
        t2i = i2t.T
    else:
        i2t, t2i = images_MD[:size] @ captions_ND.T, captions_ND[:size] @ images_MD.T
    if banked is None:
        return Similarities(i2t, t2i)
    return Similarities(_join(i2t, images_MD[:size], banked[0]), _join(t2i, captions_ND[:size], banked[1]))


def _join(similarities_BN: Tensor, queries_BD: Tensor, banked: BankFeatures) -> Float[Tensor, "B _"]:
    own_BK = (banked.own_QKD @ queries_BD[:, :, None])[:, :, 0]
    return torch.cat([similarities_BN, queries_BD @ banked.easy_ED.T, own_BK], dim=1)


class Objective:
    """L = contrastive_weight * L_contrastive + distillation_weight * L_distill, each the mean of its two directions.

    Args:
        settings: Which objective, weights and temperatures.
    """

    def __init__(self, settings: DistillSettings) -> None:
        self._settings = settings

    def __call__(
        self,
        similarities: Similarities,
        lists: BatchLists,
        scale: Float[Tensor, ""],
        step: int,
        bias: Float[Tensor, ""] | None = None,
    ) -> LossParts:
        """The loss of a batch.

        Args:
            similarities: Cosines.
            lists: What the teacher knows, and who is no negative.
            scale: The contrastive loss's inverse temperature.
            step: Steps done; distillation begins at `distillation_from_step`.
            bias: Added to the logits of the sigmoid loss; None fixes it at `sigmoid_bias`.
        """
        contrastive = self._contrastive(similarities.i2t[:, : len(similarities.i2t)] * scale, lists, bias)
        distillation = torch.zeros_like(contrastive)
        if lists.i2t is not None and lists.t2i is not None and step >= self._settings.distillation_from_step:
            of_images = teacher_loss(self._settings, similarities.i2t, scale, lists.i2t)
            distillation = (of_images + teacher_loss(self._settings, similarities.t2i, scale, lists.t2i)) / 2
        total = self._settings.contrastive_weight * contrastive + self._settings.distillation_weight * distillation
        return LossParts(total, contrastive, distillation)

    def _contrastive(self, logits_BB: Float[Tensor, "B B"], lists: BatchLists, bias: Tensor | None) -> Float[Tensor, ""]:
        excluded_BB: Bool[Tensor, "B B"] = lists.excluded_BB
        if self._settings.contrastive == "sigmoid":
            return sigmoid_loss(logits_BB + (self._settings.sigmoid_bias if bias is None else bias), excluded_BB, lists.paired_B)
        smoothing = self._settings.label_smoothing
        i2t = itc_loss(logits_BB, excluded_BB, lists.paired_B, smoothing)
        return (i2t + itc_loss(logits_BB.T, excluded_BB.T, lists.paired_B, smoothing)) / 2
