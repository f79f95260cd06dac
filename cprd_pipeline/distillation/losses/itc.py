"""Image-text contrastive loss (InfoNCE), aware of which pairs are annotated.

Source: van den Oord et al. 2018, arXiv:1807.03748; symmetric form of Radford et al. 2021, arXiv:2103.00020.

Shape suffixes: Q queries, N items of the other side; the positive of query i is item i.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cprd_pipeline.distillation.losses.lists import MASKED


def itc_loss(
    logits_QN: Float[Tensor, "Q N"],
    excluded_QN: Bool[Tensor, "Q N"],
    paired_Q: Bool[Tensor, " Q"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of each query's own item against the items of the batch, for one direction.

    Args:
        logits_QN: Similarities divided by the temperature; N >= Q.
        excluded_QN: Pairs that are no negatives: other positives of the query, equal content, flagged false negatives.
            The query's own item counts even when it is marked.
        paired_Q: Queries whose own item is a positive; the others add nothing, and the mean is over these. None: all.
        label_smoothing: Share of the target that is spread evenly over the own item and the negatives (Szegedy et al. 2016,
            arXiv:1512.00567).
    """
    own_QN = torch.eye(*logits_QN.shape, dtype=torch.bool, device=logits_QN.device)
    silent_QN = excluded_QN & ~own_QN
    log_shares_QN = logits_QN.masked_fill(silent_QN, MASKED).log_softmax(1)
    terms_Q = -log_shares_QN.diagonal()
    if label_smoothing:
        even_Q = -log_shares_QN.masked_fill(silent_QN, 0.0).sum(1) / (~silent_QN).sum(1)
        terms_Q = (1 - label_smoothing) * terms_Q + label_smoothing * even_Q
    if paired_Q is None:
        return terms_Q.mean()
    loss: Tensor = terms_Q.masked_fill(~paired_Q, 0.0).sum() / paired_Q.sum().clamp(min=1)
    return loss
