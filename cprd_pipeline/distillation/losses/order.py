"""Items in the teacher's order, and the student's log-sums along it.

Shape suffixes: Q queries, N items encoded with the batch.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def teacher_order(teacher_QN: Float[Tensor, "Q N"], mask_QN: Bool[Tensor, "Q N"]) -> Int[Tensor, "Q N"]:
    """Columns of each query: the masked-in items by teacher score, best first, then all others; ties by column."""
    return teacher_QN.masked_fill(~mask_QN, -torch.inf).argsort(dim=1, descending=True, stable=True)


def log_sums_from(ranked_QN: Float[Tensor, "Q N"]) -> Float[Tensor, "Q N"]:
    """At rank j the log of the sum of exp over the ranks k >= j.

    A reversed `logcumsumexp` is exact at any temperature. A Q x N x N mask takes fifty times as long and thirty times the
    memory (tests/benchmarks/losses.py); cumulated plain exponentials give NaN at a temperature of 0.01.
    """
    log_sums: Tensor = ranked_QN.flip(1).logcumsumexp(1).flip(1)
    return log_sums
