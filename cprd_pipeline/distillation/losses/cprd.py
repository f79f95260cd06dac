"""Contrastive partial ranking distillation.

Source: Chen et al., "How To Make Cross Encoder A Good Teacher For Efficient Image-Text Retrieval?", CVPR 2024,
arXiv:2407.07479. From the paper: a contrastive term for each valid hard negative in the teacher's order, against what
ranks below it and the easy negatives. Ours, each a setting: the weights, the temperature, which items are valid, the
positive inside the list.

Shape suffixes: Q queries, N items encoded with the batch.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.distillation.losses.lists import MASKED, TeacherLists, masked_softmax
from cprd_pipeline.distillation.losses.order import log_sums_from, teacher_order

Weights = Literal["hard", "normalised", "soft"]


def cprd_loss(
    logits_QN: Float[Tensor, "Q N"], lists: TeacherLists, weights: Weights, teacher_temperature: float
) -> Float[Tensor, ""]:
    """The sum over queries i and valid ranks j of w_ij (log(sum_{k>=j} exp z_ik + sum_{easy e} exp z_ie) - z_ij), over Q.

    Items after the valid prefix are negatives only, with no order among them that matters.

    Args:
        logits_QN: Student similarities divided by the temperature, float32 or float64.
        lists: The teacher's knowledge of the same pairs.
        weights: `hard`: 1 / number of listed items; `normalised`: 1 / number of valid items; `soft`: the teacher's
            softmax over the list.
        teacher_temperature: Temperature of that softmax; used by `soft` only.
    """
    # What follows the valid items only ever stands in a sum: any order of it will do, and the masked ones add nothing. A
    # positive that the teacher puts below the valid prefix comes out as its last item, because it counts as valid.
    order_QN = teacher_order(lists.teacher_QN, lists.valid_QN)
    ranked_QN = logits_QN.masked_fill(~lists.listed_QN, MASKED).gather(1, order_QN)
    easy_Q1 = logits_QN.masked_fill(~lists.easy_QN, MASKED).logsumexp(1, keepdim=True)
    denominator_QN = torch.logaddexp(log_sums_from(ranked_QN), easy_Q1)
    weights_QN = _weights(lists, weights, teacher_temperature, logits_QN.dtype).gather(1, order_QN)
    terms_QN = torch.where(weights_QN > 0, denominator_QN - ranked_QN, 0.0)
    return (weights_QN * terms_QN).sum() / logits_QN.shape[0]


def _weights(lists: TeacherLists, weights: Weights, temperature: float, dtype: torch.dtype) -> Float[Tensor, "Q N"]:
    valid_QN = lists.valid_QN.to(dtype)
    if weights == "soft":
        return masked_softmax(lists.teacher_QN.to(dtype), lists.listed_QN, temperature) * valid_QN
    counted_QN = lists.listed_QN if weights == "hard" else lists.valid_QN
    return valid_QN / counted_QN.sum(1, keepdim=True).clamp(min=1)
