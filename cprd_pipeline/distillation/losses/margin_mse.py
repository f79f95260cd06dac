"""MarginMSE: the student shall be as far apart on a positive and a candidate as the teacher is.

Source: Hofstätter et al. 2020, "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
Distillation", arXiv:2010.02666. There one negative for each positive, here every candidate of the list.

Shape suffixes: Q queries, N items encoded with the batch; the positive of query i is item i.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.distillation.losses.lists import TeacherLists, own_items


def margin_mse_loss(logits_QN: Float[Tensor, "Q N"], lists: TeacherLists, teacher_temperature: float) -> Float[Tensor, ""]:
    """Mean over queries of the mean over candidates j of ((z_i - z_j) - (t_i - t_j) / teacher_temperature)^2.

    A query whose own positive is not listed, or that has no candidate, adds 0. Easy negatives have no teacher score and
    take no part.

    Args:
        logits_QN: Student similarities divided by the student's temperature, float32 or float64.
        lists: The teacher's knowledge of the same pairs.
        teacher_temperature: Brings the teacher's margins to the student's scale; 1 in the paper.
    """
    own_QN = own_items(lists)
    pairs_QN = lists.listed_QN & ~own_QN & own_QN.any(1, keepdim=True)
    # Off by what the student lacks: the squared difference of two margins is that of two errors.
    error_QN = logits_QN - lists.teacher_QN.to(logits_QN.dtype) / teacher_temperature
    own_error_Q1 = torch.where(own_QN, error_QN, 0.0).sum(1, keepdim=True)
    squares_QN = torch.where(pairs_QN, own_error_Q1 - error_QN, 0.0).square()
    loss: Tensor = (squares_QN.sum(1) / pairs_QN.sum(1).clamp(min=1)).mean()
    return loss
