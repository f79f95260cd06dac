"""The layers of BLIP's text encoder on packed captions, with weights fused where that saves calls.

Shape suffixes: T tokens of all captions of a call, M tokens or captions, N captions, S image tokens, H heads, D head width,
W width of the text encoder, V of the vision tower, E of the common space.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cprd_pipeline.models.packing import Packed, attend_to_images, attend_within


class PackedLayer:
    """One layer of the text encoder.

    Args:
        layer: Of transformers; its self-attention weights become views of fused ones.
        heads: Attention heads.
    """

    def __init__(self, layer: Any, heads: int) -> None:
        self._layer = layer
        self._heads = heads
        own = layer.attention.self
        self._weight, self._bias = fuse([own.query, own.key, own.value])

    def __call__(
        self, states: Float[Tensor, "T W"], packed: Packed, images: Sequence[Float[Tensor, "2 H S D"]], *, last: bool
    ) -> Float[Tensor, "M W"]:
        """States of all tokens, or in the last layer of each caption's first token alone.

        Args:
            states: Of all tokens.
            packed: What they stand for.
            images: Keys and values of this layer for each image of the call; none for the caption alone.
            last: Whether nothing but the first tokens is read after this layer.
        """
        context = self._within(states, packed, last)
        states = self._layer.attention.output(context, states[packed.first] if last else states)
        if images:
            crossing = self._layer.crossattention
            query = crossing.self.query(states).view(len(states), self._heads, -1)
            places = packed.captions_of if last else packed.tokens_of
            states = crossing.output(attend_to_images(query, images, places), states)
        thought: Tensor = self._layer.output(self._layer.intermediate(states), states)
        return thought

    def _within(self, states: Float[Tensor, "T W"], packed: Packed, last: bool) -> Float[Tensor, "M W"]:
        width = len(self._weight) // 3
        if last:
            query = functional.linear(states[packed.first], self._weight[:width], self._bias[:width])
            key, value = functional.linear(states, self._weight[width:], self._bias[width:]).chunk(2, dim=-1)
        else:
            query, key, value = functional.linear(states, self._weight, self._bias).chunk(3, dim=-1)
        by_head = [side.reshape(len(side), self._heads, -1) for side in (query, key, value)]
        return attend_within(by_head[0], by_head[1], by_head[2], packed.runs)


def see(vision: Any, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B S V"]:
    """BLIP's vision tower with fused attention, which transformers' own refuses; for scoring and for training.

    Args:
        vision: `BlipVisionModel`; gradient checkpointing and dropout as it is set up.
        pixels: Preprocessed pictures.
    """
    states = vision.embeddings(pixels)
    for layer in vision.encoder.layers:
        forgets = layer.gradient_checkpointing and layer.training
        states = checkpoint(_look, layer, states, use_reentrant=False) if forgets else _look(layer, states)
    seen: Tensor = vision.post_layernorm(states)
    return seen


def _look(layer: Any, states: Float[Tensor, "B S V"]) -> Float[Tensor, "B S V"]:
    """One layer of the vision tower."""
    attention = layer.self_attn
    joined = attention.qkv(layer.layer_norm1(states)).view(*states.shape[:2], 3, attention.num_heads, -1)
    query, key, value = joined.permute(2, 0, 3, 1, 4)
    dropout = attention.dropout.p if layer.training else 0.0
    context = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=attention.scale)
    states = states + attention.projection(context.transpose(1, 2).flatten(2))
    thought: Tensor = states + layer.mlp(layer.layer_norm2(states))
    return thought


def project(head: Any, states: Float[Tensor, "N W"]) -> Float[Tensor, "N E"]:
    """Vectors of the contrastive head, of length one, in the head's number type."""
    return functional.normalize(head(states.to(head.weight.dtype)), dim=-1)


def fuse(layers: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Weight and bias of several linear layers as one; the layers become views of it, so that nothing is held twice."""
    weight = torch.cat([layer.weight.detach() for layer in layers])
    bias = torch.cat([layer.bias.detach() for layer in layers])
    start = 0
    for layer in layers:
        stop = start + layer.out_features
        layer.weight.data, layer.bias.data = weight[start:stop], bias[start:stop]
        start = stop
    return weight, bias
