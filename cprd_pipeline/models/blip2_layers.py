"""The layers of BLIP-2's Q-Former on packed captions, with weights fused where that saves calls.

Queries and words share the self-attention; the image is seen by the queries alone, and each side has its own feed-forward part.

Shape suffixes: B images, N captions (packed: shorter ones first), Q queries of each, T words of all captions, S image tokens,
C layers with cross-attention, H heads, D head width, V width of the vision tower, W width of the Q-Former. M is N, or 1 as long
as no caption has touched the queries.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cprd_pipeline.models.blip_layers import fuse
from cprd_pipeline.models.packing import Run, attend_to_images


class Sight(NamedTuple):
    """What the queries of a call look at.

    Args:
        images: Keys and values of each image, [C 2 H S D]; none for captions alone.
        rows: Which of the N*Q queries belong to each image; nothing when there is one image.
    """

    images: Sequence[Tensor] = ()
    rows: Sequence[Tensor] = ()


class QFormer:
    """All layers.

    Args:
        qformer: Of transformers; attention weights become views of fused ones.
    """

    def __init__(self, qformer: Any) -> None:
        layers = qformer.encoder.layer
        self._heads = qformer.config.num_attention_heads
        self._crossing = [layer for layer in layers if layer.has_cross_attention]
        numbers = {id(layer): number for number, layer in enumerate(self._crossing)}
        self._layers = [_QFormerLayer(layer, self._heads, numbers.get(id(layer))) for layer in layers]
        sides = [layer.crossattention.attention for layer in self._crossing]
        self._keys_values = fuse([part for side in sides for part in (side.key, side.value)])

    def keys_values(self, states: Float[Tensor, "B S V"]) -> Float[Tensor, "B C 2 H S D"]:
        """Keys and values of all cross-attention layers from the vision tower's states."""
        flat = functional.linear(states, *self._keys_values)
        by_head = flat.view(*states.shape[:2], len(self._crossing), 2, self._heads, -1)
        return by_head.permute(0, 2, 3, 4, 1, 5).contiguous()

    def ask(
        self, queries: Float[Tensor, "1 Q W"], words: Float[Tensor, "T W"], runs: Sequence[Run], sight: Sight
    ) -> Float[Tensor, "N Q W"]:
        """Last states of the queries of each packed caption; runs of length 0 for the images alone."""
        for layer in self._layers[:-1]:
            queries, words = layer(queries, words, runs, sight)
        return self._layers[-1].last(queries, words, runs, sight)

    def read(self, words: Float[Tensor, "T W"], runs: Sequence[Run]) -> Float[Tensor, "T W"]:
        """Last states of the words of captions alone."""
        queries = words.new_empty(1, 0, words.shape[1])
        for layer in self._layers:
            queries, words = layer(queries, words, runs, Sight())
        return words


class _QFormerLayer:
    """One layer; `crossing` tells which of an image's keys and values it reads, None that it does not look."""

    def __init__(self, layer: Any, heads: int, crossing: int | None) -> None:
        self._layer = layer
        self._heads = heads
        self._crossing = crossing
        own = layer.attention.attention
        self._weight, self._bias = fuse([own.query, own.key, own.value])

    def __call__(
        self, queries: Float[Tensor, "M Q W"], words: Float[Tensor, "T W"], runs: Sequence[Run], sight: Sight
    ) -> tuple[Float[Tensor, "N Q W"], Float[Tensor, "T W"]]:
        """New states of queries and words."""
        contexts = self._within(queries, functional.linear(words, self._weight, self._bias), runs)
        count = queries.shape[1]
        queries = self._think(torch.cat([context[:, :count] for context in contexts]), queries, sight)
        told = torch.cat([context[:, count:].flatten(0, 1) for context in contexts])
        words = self._layer.attention.output(told, words)
        return queries, self._layer.output(self._layer.intermediate(words), words)

    def last(
        self, queries: Float[Tensor, "M Q W"], words: Float[Tensor, "T W"], runs: Sequence[Run], sight: Sight
    ) -> Float[Tensor, "N Q W"]:
        """New states of the queries alone: nobody reads the words after this layer."""
        width = words.shape[1]
        keys_values = functional.linear(words, self._weight[width:], self._bias[width:])
        return self._think(torch.cat(self._within(queries, keys_values, runs)), queries, sight)

    def _within(
        self, queries: Float[Tensor, "M Q W"], projected: Float[Tensor, "T X"], runs: Sequence[Run]
    ) -> list[Float[Tensor, "_ _ W"]]:
        """Self-attention over queries and words, run by run, so that no mask and no padding is needed.

        Args:
            queries: States.
            projected: Of the words: keys and values, after their queries where the words ask too.
            runs: As in `Packed`.

        Returns:
            For each run [captions Q W], or where the words ask too [captions Q+length W].
        """
        width = queries.shape[2]
        captions = sum(run.captions for run in runs)
        # Where no caption has touched the queries yet, they are projected once for all captions.
        of_queries = functional.linear(queries, self._weight, self._bias).expand(captions, -1, -1)
        words_ask = projected.shape[1] == 3 * width
        contexts = []
        first = 0
        for run in runs:
            ours = of_queries[first : first + run.captions]
            words = projected[run.start : run.start + run.captions * run.length]
            theirs = words.view(run.captions, run.length, projected.shape[1])
            query = torch.cat([ours[..., :width], theirs[..., :width]], 1) if words_ask else ours[..., :width]
            keys_values = torch.cat([ours[..., width:], theirs[..., -2 * width :]], 1)
            key, value = keys_values.chunk(2, dim=2)
            query, key, value = (side.reshape(*side.shape[:2], self._heads, -1).transpose(1, 2) for side in (query, key, value))
            contexts.append(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
            first += run.captions
        return contexts

    def _think(self, context: Float[Tensor, "N Q W"], queries: Float[Tensor, "M Q W"], sight: Sight) -> Float[Tensor, "N Q W"]:
        """What follows the self-attention on the queries' side: the look at the image, and their feed-forward part."""
        queries = self._layer.attention.output(context, queries)
        if self._crossing is not None and sight.images:
            crossing = self._layer.crossattention
            query = crossing.attention.query(queries).view(queries.shape[0] * queries.shape[1], self._heads, -1)
            images = [image[self._crossing] for image in sight.images]
            seen = attend_to_images(query, images, sight.rows).view(queries.shape)
            queries = crossing.output(seen, queries)
        thought: Tensor = self._layer.output_query(self._layer.intermediate_query(queries), queries)
        return thought
