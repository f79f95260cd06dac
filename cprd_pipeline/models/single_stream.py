"""Encoders in which image and caption are one sequence (FLAVA's joint layers, all of ViLT), on pairs without padding.

Shape suffixes: N pairs, S tokens of an image or a caption, T tokens of all sequences side by side, Q of them that ask, R rows
of a table of tokens, W width.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.models.packing import Packed, Run, attend_within, pack

PAIRS_AT_ONCE = 64
"""Pairs that go through the joint layers together: about 14,000 tokens, which take 0.6 GB in float32 at width 768."""


class JoinedText(NamedTuple):
    """A caption as the layers take it in which it meets an image.

    Args:
        states: States of its tokens, [S W].
        tokens: Number of tokens before cutting.
    """

    states: Tensor
    tokens: int


class PreNormLayer:
    """A layer of FLAVA's or ViLT's encoders on sequences side by side.

    Args:
        layer: `FlavaLayer` or `ViltLayer`.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._own = layer.attention.attention

    def __call__(self, states: Float[Tensor, "T W"], runs: Sequence[Run]) -> Float[Tensor, "T W"]:
        """States of all tokens."""
        normed = self._layer.layernorm_before(states)
        sides = [side(normed) for side in (self._own.query, self._own.key, self._own.value)]
        return self._finish(sides, states, runs)

    def spread(self, tokens: Float[Tensor, "R W"], packed: Packed) -> Float[Tensor, "T W"]:
        """A call on `tokens[packed.ids]`; what depends on a token alone is computed once, however many sequences have it."""
        normed = self._layer.layernorm_before(tokens)
        sides = [side(normed)[packed.ids] for side in (self._own.query, self._own.key, self._own.value)]
        return self._finish(sides, tokens[packed.ids], packed.runs)

    def first_tokens(self, states: Float[Tensor, "T W"], packed: Packed) -> Float[Tensor, "N W"]:
        """States of each sequence's first token alone."""
        normed = self._layer.layernorm_before(states)
        sides = [self._own.query(normed[packed.first]), self._own.key(normed), self._own.value(normed)]
        return self._finish(sides, states[packed.first], packed.runs)

    def _finish(
        self, sides: Sequence[Float[Tensor, "_ W"]], states: Float[Tensor, "Q W"], runs: Sequence[Run]
    ) -> Float[Tensor, "Q W"]:
        """From queries, keys and values, and the states of those who ask, to their next states."""
        query, key, value = (side.view(len(side), self._own.num_attention_heads, -1) for side in sides)
        states = states + self._layer.attention.output.dense(attend_within(query, key, value, runs))
        thought: Tensor = self._layer.output(self._layer.intermediate(self._layer.layernorm_after(states)), states)
        return thought


def read_pairs(layers: Sequence[PreNormLayer], pairs: Sequence[tuple[Tensor, Tensor]]) -> Float[Tensor, "N W"]:
    """Last state of the first token of each pair.

    Args:
        layers: Of a single-stream encoder, at least one.
        pairs: States of its two parts, [S W] each, in the order of the sequence; a part of several pairs is one object.
    """
    slices = [pairs[start : start + PAIRS_AT_ONCE] for start in range(0, len(pairs), PAIRS_AT_ONCE)]
    return torch.cat([_read_slice(layers, part) for part in slices])


def _read_slice(layers: Sequence[PreNormLayer], pairs: Sequence[tuple[Tensor, Tensor]]) -> Float[Tensor, "N W"]:
    parts = {id(part): part for pair in pairs for part in pair}
    tokens = torch.cat(list(parts.values()))
    places = torch.split(torch.arange(len(tokens)), [len(part) for part in parts.values()])
    rows = dict(zip(parts, places, strict=True))
    packed = pack([torch.cat([rows[id(first)], rows[id(second)]]) for first, second in pairs], tokens.device)
    *before, last = layers
    states = before[0].spread(tokens, packed) if before else tokens[packed.ids]
    read = last.first_tokens(through(before[1:], states, packed.runs), packed)
    return read[packed.order.argsort()]


def apart(states: Float[Tensor, "T W"], packed: Packed) -> list[Tensor]:
    """States of each caption, [S W], in the order in which the captions were packed."""
    by_place = torch.split(states, [length for _, captions, length in packed.runs for _ in range(captions)])
    return [by_place[place] for place in packed.order.argsort().tolist()]


def through(layers: Sequence[PreNormLayer], states: Float[Tensor, "T W"], runs: Sequence[Run]) -> Float[Tensor, "T W"]:
    """States after several layers."""
    for layer in layers:
        states = layer(states, runs)
    return states
