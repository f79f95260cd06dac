"""Distillation by the Kullback-Leibler divergence between the teacher's and the student's softmax over a list.

Source: Hinton et al. 2015, arXiv:1503.02531, with a temperature for each side.

Shape suffixes: Q queries, N items encoded with the batch.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.distillation.losses.lists import MASKED, TeacherLists, masked_softmax


def kl_loss(logits_QN: Float[Tensor, "Q N"], lists: TeacherLists, teacher_temperature: float) -> Float[Tensor, ""]:
    """Mean over queries of sum_j p_j (log p_j - log q_j).

    p is the teacher's softmax over the listed items. q is the student's over the listed items and the easy negatives,
    for which p is 0: an unknown pair of the batch was not worth mining, so it counts as certainly wrong.

    Args:
        logits_QN: Student similarities divided by the student's temperature, float32 or float64.
        lists: The teacher's knowledge of the same pairs.
        teacher_temperature: Divides the teacher scores.
    """
    target_QN = masked_softmax(lists.teacher_QN.to(logits_QN.dtype), lists.listed_QN, teacher_temperature)
    seen_QN = lists.listed_QN | lists.easy_QN
    log_student_QN = logits_QN.masked_fill(~seen_QN, MASKED).log_softmax(dim=1)
    cross_entropy_Q = -torch.where(target_QN > 0, target_QN * log_student_QN, 0.0).sum(1)
    entropy_Q = torch.special.entr(target_QN).sum(1)
    loss: Tensor = (cross_entropy_Q - entropy_Q).mean()
    return loss
