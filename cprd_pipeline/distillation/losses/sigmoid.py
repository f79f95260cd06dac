"""Pairwise sigmoid loss: every pair of the batch is a question of its own.

Source: Zhai et al. 2023 (SigLIP), arXiv:2303.15343.

Shape suffixes: Q queries, N items of the other side; the positive of query i is item i.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def sigmoid_loss(
    logits_QN: Float[Tensor, "Q N"], excluded_QN: Bool[Tensor, "Q N"], paired_Q: Bool[Tensor, " Q"] | None = None
) -> Float[Tensor, ""]:
    """Sum of log(1 + exp(-y z)) over the pairs that count, over Q; y is 1 for the query's own item and -1 otherwise.

    Transposed, a square batch gives the same value: one direction is enough.

    Args:
        logits_QN: Similarities times the scale, plus the bias, float32 or float64.
        excluded_QN: Pairs that are no negatives: other positives of the query, equal content, flagged false negatives.
            The query's own item counts even when it is marked.
        paired_Q: Queries whose own item is a positive; that of the others adds nothing. None: all.
    """
    own_QN = torch.eye(*logits_QN.shape, dtype=torch.bool, device=logits_QN.device)
    terms_QN = -functional.logsigmoid(torch.where(own_QN, logits_QN, -logits_QN))
    silent_QN = excluded_QN & ~own_QN if paired_Q is None else torch.where(own_QN, ~paired_Q[:, None], excluded_QN)
    return terms_QN.masked_fill(silent_QN, 0.0).sum() / logits_QN.shape[0]
