"""What a cross-encoder learns from: its own pairs, and negatives that its dual branch takes for positives.

Shape suffixes: Q queries of the batch, N items of the other side, K sampled negatives.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from cprd_pipeline.distillation.losses.lists import MASKED

_LEFTOVER = 1e-12


def sample_negatives(
    logits_QN: Float[Tensor, "Q N"],
    excluded_QN: Bool[Tensor, "Q N"],
    count: int,
    hard_share: float,
    generator: torch.Generator,
) -> Int[Tensor, "Q K"]:
    """Draw distinct negatives of each query: partly anywhere in the batch, partly where the logits are high.

    Args:
        logits_QN: Of a cheaper model; higher for what looks more alike.
        excluded_QN: Pairs that are no negatives. They are drawn only by a query that has fewer than K negatives.
        count: K, at most N.
        hard_share: Share of the probability that follows softmax(logits); the rest is uniform.
        generator: Of all draws, on the CPU.

    Source: Li et al. 2021 (ALBEF), arXiv:2107.07651, where all follow the softmax; the uniform share keeps a few
    ambiguous captions from filling the batch.
    """
    allowed_QN = ~excluded_QN
    uniform_QN = allowed_QN / allowed_QN.sum(1, keepdim=True).clamp(min=1)
    alike_QN = torch.softmax(logits_QN.masked_fill(excluded_QN, MASKED), 1) * allowed_QN
    weights_QN = (1 - hard_share) * uniform_QN + hard_share * alike_QN + _LEFTOVER
    return torch.multinomial(weights_QN.cpu(), count, generator=generator).to(logits_QN.device)


def matching_loss(
    positive_Q: Float[Tensor, " Q"], negative_QK: Float[Tensor, "Q K"], excluded_QK: Bool[Tensor, "Q K"]
) -> Float[Tensor, ""]:
    """Mean binary cross-entropy of matching logits.

    Args:
        positive_Q: Logits of annotated pairs.
        negative_QK: Logits of the drawn negatives.
        excluded_QK: Drawn pairs that are none; they count nothing.
    """
    wrong_QK = functional.softplus(negative_QK).masked_fill(excluded_QK, 0.0)
    loss: Tensor = functional.softplus(-positive_Q).sum() + wrong_QK.sum()
    return loss / (len(positive_Q) + (~excluded_QK).sum())


def listwise_loss(
    positive_Q: Float[Tensor, " Q"], negative_QK: Float[Tensor, "Q K"], excluded_QK: Bool[Tensor, "Q K"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy of each query's positive against its drawn negatives; arguments as in `matching_loss`.

    It asks for an order within a query where `matching_loss` asks for a threshold that holds for all.
    """
    logits_QL = torch.cat([positive_Q[:, None], negative_QK.masked_fill(excluded_QK, MASKED)], 1)
    return -functional.log_softmax(logits_QL, 1)[:, 0].mean()
