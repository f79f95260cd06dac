"""What the distillation objectives are given: for each query of a batch, which items are listed and what the teacher said.

Shape suffixes: Q queries of the batch, N items of the other side that were encoded with it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MASKED = -1e30
"""Stands for minus infinity where a gradient must stay finite: `logcumsumexp` gives NaN gradients for real infinities."""


@dataclass(frozen=True)
class TeacherLists:
    """Teacher knowledge about the pairs of a batch, for one direction.

    The own positive of query i is item i. An objective's loss is the mean over all Q queries of the batch, also those with
    nothing listed, which add 0: so many processes, each with a part of the batch, equal one.

    Args:
        teacher_QN: Raw teacher scores, float32; any finite value where a pair is not listed.
        listed_QN: Pairs of the ranked list: known candidates, and the query's own positive when it takes part.
        valid_QN: Listed pairs whose rank carries knowledge; the positive is always one of them.
        easy_QN: Easy negatives: neither listed, nor a positive of the query, nor flagged as a false negative.
    """

    teacher_QN: Float[Tensor, "Q N"]
    listed_QN: Bool[Tensor, "Q N"]
    valid_QN: Bool[Tensor, "Q N"]
    easy_QN: Bool[Tensor, "Q N"]

    def to(self, device: torch.device) -> "TeacherLists":
        """The same lists on a device."""
        return TeacherLists(*(tensor.to(device) for tensor in (self.teacher_QN, self.listed_QN, self.valid_QN, self.easy_QN)))


def own_items(lists: TeacherLists) -> Bool[Tensor, "Q N"]:
    """Item i of query i where it is listed: the query's own positive."""
    listed_QN = lists.listed_QN
    return torch.eye(*listed_QN.shape, dtype=torch.bool, device=listed_QN.device) & listed_QN


def masked_softmax(scores_QN: Float[Tensor, "Q N"], mask_QN: Bool[Tensor, "Q N"], temperature: float) -> Float[Tensor, "Q N"]:
    """Softmax over the masked-in items of each row; a row without any gives zeros."""
    weights = (scores_QN / temperature).masked_fill(~mask_QN, MASKED).softmax(dim=1)
    return weights * mask_QN
