"""Captions of several lengths side by side without padding, and attention inside each of them.

Shape suffixes: T tokens of all captions, Q queries, N captions, H heads, D head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
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
        tokens_of: For each image of the call the places of its captions' tokens; empty when there is one image.
        captions_of: For each image the places of its captions; empty when there is one image.
    """

    ids: Int[Tensor, " T"]
    positions: Int[Tensor, " T"]
    first: Int[Tensor, " N"]
    order: Int[Tensor, " N"]
    runs: tuple[Run, ...]
    tokens_of: tuple[Tensor, ...] = ()
    captions_of: tuple[Tensor, ...] = ()


def pack(captions: Sequence[Tensor], device: torch.device, counts: Sequence[int] = ()) -> Packed:
    """Concatenate captions.

    Args:
        captions: Token ids of each, int64 [at least 1], at least one caption.
        device: Where the result shall be.
        counts: Captions of each image of the call, in their order; nothing when all are of one image, or of none.
    """
    lengths = np.array([len(caption) for caption in captions])
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    first = np.cumsum(ordered) - ordered
    sizes, begins, numbers = np.unique(ordered, return_index=True, return_counts=True)
    runs = tuple(Run(int(first[begin]), int(number), int(size)) for size, begin, number in zip(sizes, begins, numbers, strict=True))
    positions = np.arange(ordered.sum()) - np.repeat(first, ordered)
    ids = torch.cat([captions[row] for row in order.tolist()])
    owner = np.repeat(np.arange(len(counts)), counts)[order] if len(counts) > 1 else np.empty(0, dtype=np.int64)
    return Packed(
        ids=ids.to(device),
        positions=torch.from_numpy(positions).to(device),
        first=torch.from_numpy(first).to(device),
        order=torch.from_numpy(order).to(device),
        runs=runs,
        tokens_of=_places(np.repeat(owner, ordered), len(counts), device) if len(owner) else (),
        captions_of=_places(owner, len(counts), device) if len(owner) else (),
    )


def _places(owner: npt.NDArray[np.int64], count: int, device: torch.device) -> tuple[Tensor, ...]:
    """Where each owner stands."""
    order = torch.from_numpy(np.argsort(owner, kind="stable")).to(device)
    return tuple(torch.split(order, np.bincount(owner, minlength=count).tolist()))


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


def attend_to_images(
    queries: Float[Tensor, "M H D"], images: Sequence[Float[Tensor, "2 H S D"]], places: Sequence[Tensor]
) -> Float[Tensor, "M H*D"]:
    """Cross-attention of packed tokens to the image that each belongs to.

    All tokens of an image's captions are one query axis: its keys and values are read once and never copied.

    Args:
        queries: Of all tokens, or of the first token of each caption alone.
        images: Keys and values of each image.
        places: Which of the queries belong to each image, as `Packed` tells; nothing when there is one image.
    """
    if len(images) == 1:
        return _attend_to_image(queries, images[0]).flatten(1)
    seen = torch.empty_like(queries)
    for image, rows in zip(images, places, strict=True):
        seen[rows] = _attend_to_image(queries[rows], image)
    return seen.flatten(1)


def _attend_to_image(queries: Float[Tensor, "M H D"], image: Float[Tensor, "2 H S D"]) -> Float[Tensor, "M H D"]:
    seen = functional.scaled_dot_product_attention(queries.transpose(0, 1)[None], image[0][None], image[1][None])[0]
    return seen.transpose(0, 1)
