"""Image-text contrastive loss (InfoNCE), aware of which pairs are annotated.

Source: van den Oord et al. 2018, arXiv:1807.03748; symmetric form of Radford et al. 2021, arXiv:2103.00020.

Shape suffixes: Q queries, N items of the other side; the positive of query i is item i.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cprd_pipeline.distillation.losses.lists import MASKED


def itc_loss(logits_QN: Float[Tensor, "Q N"], excluded_QN: Bool[Tensor, "Q N"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of each query's own item against the items of the batch, for one direction.

    Args:
        logits_QN: Similarities divided by the temperature; N >= Q.
        excluded_QN: Pairs that are no negatives: other positives of the query, equal content, flagged false negatives.
            The query's own item counts even when it is marked.
    """
    own_QN = torch.eye(*logits_QN.shape, dtype=torch.bool, device=logits_QN.device)
    allowed_QN = logits_QN.masked_fill(excluded_QN & ~own_QN, MASKED)
    target_Q = torch.arange(len(logits_QN), device=logits_QN.device)
    return torch.nn.functional.cross_entropy(allowed_QN, target_Q)
