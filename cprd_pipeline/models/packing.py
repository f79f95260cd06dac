"""Captions of several lengths side by side without padding, and attention inside each of them.

Shape suffixes: T tokens of all captions, Q queries, N captions, H heads, D head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


class Run(NamedTuple):
    """Neighbouring captions of one length.

    Args:
        start: First token of the run.
        captions: Captions in it.
        length: Tokens of each.
    """

    start: int
    captions: int
    length: int


@dataclass(frozen=True)
class Packed:
    """Token ids of captions, one after the other, shorter captions first.

    Args:
        ids: int64 [T].
        positions: Place of each token in its caption, int64 [T].
        first: Where each packed caption begins, int64 [N].
        order: Which of the given captions stands at each place, int64 [N].
        runs: The stretches of equal length.
    """

    ids: Int[Tensor, " T"]
    positions: Int[Tensor, " T"]
    first: Int[Tensor, " N"]
    order: Int[Tensor, " N"]
    runs: tuple[Run, ...]


def pack(captions: Sequence[Tensor], device: torch.device) -> Packed:
    """Concatenate captions.

    Args:
        captions: Token ids of each, int64 [at least 1], at least one caption.
        device: Where the result shall be.
    """
    lengths = np.array([len(caption) for caption in captions])
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    first = np.cumsum(ordered) - ordered
    sizes, begins, counts = np.unique(ordered, return_index=True, return_counts=True)
    runs = tuple(Run(int(first[begin]), int(count), int(size)) for size, begin, count in zip(sizes, begins, counts, strict=True))
    positions = np.arange(ordered.sum()) - np.repeat(first, ordered)
    return Packed(
        torch.cat([captions[row] for row in order]).to(device),
        torch.from_numpy(positions).to(device),
        torch.from_numpy(first).to(device),
        torch.from_numpy(order).to(device),
        runs,
    )


def attend_within(
    queries: Float[Tensor, "Q H D"], keys: Float[Tensor, "T H D"], values: Float[Tensor, "T H D"], runs: Sequence[Run]
) -> Float[Tensor, "Q HD"]:
    """Attention of each caption's tokens to the tokens of the same caption.

    One call per length, so that no mask and no padding is needed.

    Args:
        queries: Of all tokens, or of the first token of each caption alone.
        keys: Of all tokens.
        values: Of all tokens.
        runs: As in `Packed`.
    """
    every_token = len(queries) == len(keys)
    outputs = []
    start = 0
    for run in runs:
        asked = run.length if every_token else 1
        tokens = slice(run.start, run.start + run.captions * run.length)
        query = queries[start : start + run.captions * asked].reshape(run.captions, asked, *queries.shape[1:])
        key, value = (side[tokens].reshape(run.captions, run.length, *side.shape[1:]) for side in (keys, values))
        context = functional.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        outputs.append(context.transpose(1, 2).flatten(0, 1))
        start += run.captions * asked
    return torch.cat(outputs).flatten(1)
