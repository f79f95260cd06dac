"""Scores of a list brought to mean 0 and deviation 1, so that only the shape of a list is distilled, not its spread.

Source: Sun et al. 2024, "Logit Standardization in Knowledge Distillation", arXiv:2403.01427.

Shape suffixes: Q queries, N items encoded with the batch.
"""

import dataclasses

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cprd_pipeline.distillation.losses.lists import TeacherLists

# Added to the variance. A list of equal values has no direction to learn: at a deviation far below 0.01 the gradient is
# damped where it would grow without bound.
_VARIANCE_FLOOR = 1e-4


def standardise_both(logits_QN: Float[Tensor, "Q N"], lists: TeacherLists) -> tuple[Float[Tensor, "Q N"], TeacherLists]:
    """Student logits and teacher scores, each standardised per query.

    The teacher's mean and deviation are those of the listed items, the student's of the listed items and the easy
    negatives: what its softmax runs over. Outside these the values are 0.

    Args:
        logits_QN: Student similarities times the scale of the contrastive loss, float32 or float64.
        lists: The teacher's knowledge of the same pairs.
    """
    teacher_QN = _standardise(lists.teacher_QN.to(logits_QN.dtype), lists.listed_QN)
    return _standardise(logits_QN, lists.listed_QN | lists.easy_QN), dataclasses.replace(lists, teacher_QN=teacher_QN)


def _standardise(values_QN: Float[Tensor, "Q N"], mask_QN: Bool[Tensor, "Q N"]) -> Float[Tensor, "Q N"]:
    count_Q1 = mask_QN.sum(1, keepdim=True).clamp(min=1)
    mean_Q1 = torch.where(mask_QN, values_QN, 0.0).sum(1, keepdim=True) / count_Q1
    centred_QN = torch.where(mask_QN, values_QN - mean_Q1, 0.0)
    variance_Q1 = centred_QN.square().sum(1, keepdim=True) / count_Q1
    return centred_QN / (variance_Q1 + _VARIANCE_FLOOR).sqrt()
