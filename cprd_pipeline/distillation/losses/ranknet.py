"""RankNet: a logistic loss for every two items that the teacher tells apart.

Source: Burges et al. 2005, "Learning to Rank using Gradient Descent", ICML, with target probabilities of one.

Shape suffixes: Q queries, N items encoded with the batch, L items of the longest list.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cprd_pipeline.distillation.losses.lists import TeacherLists
from cprd_pipeline.distillation.losses.order import teacher_order

PairWeights = Literal["equal", "difference"]


def ranknet_loss(logits_QN: Float[Tensor, "Q N"], lists: TeacherLists, weights: PairWeights) -> Float[Tensor, ""]:
    """Mean over queries of the weighted mean of log(1 + exp(z_j - z_i)) over listed pairs with t_i > t_j.

    Equal scores make no pair; a query without a pair adds 0. Time and memory grow with Q x L x L.

    Args:
        logits_QN: Student similarities divided by the student's temperature, float32 or float64.
        lists: The teacher's knowledge of the same pairs.
        weights: `equal`, or the `difference` t_i - t_j of the teacher scores (ours).
    """
    longest = int(lists.listed_QN.sum(1).max())
    order_QL = teacher_order(lists.teacher_QN, lists.listed_QN)[:, :longest]
    listed_QL, ranked_QL = lists.listed_QN.gather(1, order_QL), logits_QN.gather(1, order_QL)
    teacher_QL = lists.teacher_QN.gather(1, order_QL).to(logits_QN.dtype)
    gap_QLL = (teacher_QL[:, :, None] - teacher_QL[:, None, :]).relu()
    gap_QLL = gap_QLL * (listed_QL[:, :, None] & listed_QL[:, None, :])
    weights_QLL = gap_QLL if weights == "difference" else (gap_QLL > 0).to(logits_QN.dtype)
    # Not softplus: above 20 it returns its input, which is 2e-9 off.
    terms_QLL = -functional.logsigmoid(ranked_QL[:, :, None] - ranked_QL[:, None, :])
    mass_Q = weights_QLL.sum((1, 2))
    per_query_Q = (weights_QLL * terms_QLL).sum((1, 2)) / torch.where(mass_Q > 0, mass_Q, 1.0)
    loss: Tensor = per_query_Q.mean()
    return loss
