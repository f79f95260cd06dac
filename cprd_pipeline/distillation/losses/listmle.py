"""ListMLE: the likelihood of the teacher's whole order under the student's Plackett-Luce model.

Source: Xia et al. 2008, "Listwise Approach to Learning to Rank: Theory and Algorithm", ICML.

Shape suffixes: Q queries, N items encoded with the batch.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.distillation.losses.lists import MASKED, TeacherLists
from cprd_pipeline.distillation.losses.order import log_sums_from, teacher_order


def listmle_loss(logits_QN: Float[Tensor, "Q N"], lists: TeacherLists) -> Float[Tensor, ""]:
    """Mean over queries of (1/L) sum_j (log sum_{k>=j} exp z_ik - z_ij), j and k over the L listed items, best first.

    Every listed item counts, valid or not; there are no easy negatives. The paper sums over j: the division makes queries
    with short and long lists weigh the same, as in CPRD's `hard`. A query with at most one listed item adds 0.

    Args:
        logits_QN: Student similarities divided by the student's temperature, float32 or float64.
        lists: The teacher's knowledge of the same pairs; equal scores count in the order of the columns.
    """
    order_QN = teacher_order(lists.teacher_QN, lists.listed_QN)
    listed_QN = lists.listed_QN.gather(1, order_QN)
    ranked_QN = logits_QN.gather(1, order_QN).masked_fill(~listed_QN, MASKED)
    terms_QN = torch.where(listed_QN, log_sums_from(ranked_QN) - ranked_QN, 0.0)
    loss: Tensor = (terms_QN.sum(1) / listed_QN.sum(1).clamp(min=1)).mean()
    return loss
