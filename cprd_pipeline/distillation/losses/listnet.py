"""ListNet: cross-entropy of the teacher's and the student's probabilities of ranking first.

Source: Cao et al. 2007, "Learning to Rank: From Pairwise Approach to Listwise Approach", ICML, with top-1 probabilities.

Shape suffixes: Q queries, N items encoded with the batch.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.distillation.losses.lists import MASKED, TeacherLists, masked_softmax


def listnet_loss(logits_QN: Float[Tensor, "Q N"], lists: TeacherLists, teacher_temperature: float) -> Float[Tensor, ""]:
    """Mean over queries of -sum_j p_j log q_j, both softmaxes over the listed items alone.

    Its gradient is that of the KL divergence over the same list without easy negatives: the two differ by the teacher's
    entropy. A query with at most one listed item adds 0.

    Args:
        logits_QN: Student similarities divided by the student's temperature, float32 or float64.
        lists: The teacher's knowledge of the same pairs.
        teacher_temperature: Divides the teacher scores; 1 in the paper.
    """
    target_QN = masked_softmax(lists.teacher_QN.to(logits_QN.dtype), lists.listed_QN, teacher_temperature)
    log_student_QN = logits_QN.masked_fill(~lists.listed_QN, MASKED).log_softmax(dim=1)
    return -torch.where(lists.listed_QN, target_QN * log_student_QN, 0.0).sum(1).mean()
