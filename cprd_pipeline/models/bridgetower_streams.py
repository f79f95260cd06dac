"""The two streams of BridgeTower's cross-modal layers: each reads its own tower by bridges, and the other by cross-attention.

States are rows without padding: the tokens of all captions of a call one after the other, or of all images.

Shape suffixes: R rows, Q rows that ask, K rows that are read, N pairs, L cross-modal layers, P prepared states, W width,
V width of the tower, C sequences, H heads, T tokens, D head width.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional


class Block(NamedTuple):
    """Neighbouring sequences of one length, that read sequences of one length.

    Args:
        sequences: How many.
        asking: Tokens of each that ask.
        read: Tokens that each of them reads.
    """

    sequences: int
    asking: int
    read: int


class Layout(NamedTuple):
    """Which rows of a stream belong together.

    Args:
        within: For self-attention.
        across: For cross-attention to the other stream.
        first: Rows of the first tokens, int64 [N].
        all_ask: Whether all rows ask, or the first tokens alone.
    """

    within: Sequence[Block]
    across: Sequence[Block]
    first: Int[Tensor, " N"]
    all_ask: bool = True

    def of_first(self) -> "Layout":
        """The layout when only first tokens ask."""
        within, across = ([block._replace(asking=1) for block in blocks] for blocks in (self.within, self.across))
        return Layout(within, across, self.first, all_ask=False)


class Stream:
    """One of the two streams.

    Args:
        core: `BridgeTowerModel`.
        side: Which one.
    """

    def __init__(self, core: Any, side: str) -> None:
        self._norm = getattr(core, f"cross_modal_{side}_layernorm")
        self._transform = getattr(core, f"cross_modal_{side}_transform")
        self._links = getattr(core, f"cross_modal_{side}_link_tower")
        self._layers = getattr(core, f"cross_modal_{side}_layers")
        self._pooler = getattr(core, f"cross_modal_{side}_pooler")
        self._kinds, self._kind = core.token_type_embeddings, {"text": 0, "image": 1}[side]
        self._heads = core.config.text_config.num_attention_heads

    def prepare(self, tower: Sequence[Float[Tensor, "R V"]], blocks: Sequence[Block], reader: "Stream") -> Float[Tensor, "P R W"]:
        """What does not depend on the other side.

        Args:
            tower: States of the L last layers of the stream's tower.
            blocks: For self-attention.
            reader: The other stream.

        Returns:
            Of the first layer the states after self-attention, what they ask of the other stream, and the keys and values
            that the other stream reads; then the bridges of the L - 1 other layers: P is L + 3.
        """
        bridges = [self._bridge(states, number) for number, states in enumerate(tower)]
        entered = self._norm(bridges[0])
        attended = self_attend(self._layers[0].attention, entered, blocks, self._heads)
        return torch.stack([attended, self.queries(0, attended), *reader.keys_values(0, entered), *bridges[1:]])

    def queries(self, number: int, attended: Float[Tensor, "Q W"]) -> Float[Tensor, "Q W"]:
        """What a layer's cross-attention asks of the other stream."""
        asked: Tensor = self._layers[number].crossattention.self.query(attended)
        return asked

    def keys_values(self, number: int, other: Float[Tensor, "K W"]) -> tuple[Tensor, Tensor]:
        """What a layer's cross-attention reads of the other stream's states."""
        cross = self._layers[number].crossattention.self
        return cross.key(other), cross.value(other)

    def link(self, number: int, bridge: Float[Tensor, "*R W"], states: Float[Tensor, "Q W"]) -> Float[Tensor, "Q W"]:
        """A layer's input: the bridge from the tower with the states of the layer before.

        Args:
            number: Of the layer, at least 1.
            bridge: Of all rows, or [1 S W] where all sequences have the same.
            states: Of all rows.
        """
        linked: Tensor = self._links[number - 1](bridge, states.view(-1, *bridge.shape[1:]), None)
        return linked.flatten(0, -2)

    def cross(self, number: int, linked: Float[Tensor, "R W"], other: Float[Tensor, "K W"], layout: Layout) -> Float[Tensor, "Q W"]:
        """One layer, of the rows that ask.

        Args:
            number: Of the layer.
            linked: The stream's input of the layer.
            other: That of the other stream.
            layout: Who reads what.
        """
        asking = None if layout.all_ask else layout.first
        attended = self_attend(self._layers[number].attention, linked, layout.within, self._heads, asking)
        return self.meet(number, attended, self.queries(number, attended), self.keys_values(number, other), layout.across)

    def meet(
        self,
        number: int,
        attended: Float[Tensor, "Q W"],
        queries: Float[Tensor, "Q W"],
        other: tuple[Float[Tensor, "K W"], Float[Tensor, "K W"]],
        blocks: Sequence[Block],
    ) -> Float[Tensor, "Q W"]:
        """A layer's cross-attention and what follows.

        Args:
            number: Of the layer.
            attended: States after self-attention.
            queries: What they ask.
            other: Keys and values of the other stream.
            blocks: Who reads what.
        """
        layer = self._layers[number]
        context = attend(queries, *other, blocks, self._heads)
        states = layer.crossattention.output(context, attended)
        thought: Tensor = layer.output(layer.intermediate(states), states)
        return thought

    def pool(self, states: Float[Tensor, "N W"]) -> Float[Tensor, "N W"]:
        """What the head reads of the first tokens, in the pooler's own number type."""
        pooled: Tensor = self._pooler(states.to(self._pooler.dense.weight.dtype)[:, None])
        return pooled

    def _bridge(self, states: Float[Tensor, "R V"], number: int) -> Float[Tensor, "R W"]:
        transform: Callable[[Tensor], Tensor] = (
            self._transform[number] if isinstance(self._transform, nn.ModuleList) else self._transform
        )
        kind: Tensor = self._kinds.weight[self._kind]
        return transform(states) + kind


def self_attend(
    attention: Any, states: Float[Tensor, "R W"], blocks: Sequence[Block], heads: int, first: Int[Tensor, " N"] | None = None
) -> Float[Tensor, "Q W"]:
    """Self-attention with its residual connection and norm.

    Args:
        attention: `BridgeTowerAttention`.
        states: Of all rows.
        blocks: Which rows belong together.
        heads: Attention heads.
        first: Rows that ask; all when None.
    """
    asking = states if first is None else states[first]
    own = attention.self
    context = attend(own.query(asking), own.key(states), own.value(states), blocks, heads)
    attended: Tensor = attention.output(context, asking)
    return attended


def attend(
    queries: Float[Tensor, "Q W"], keys: Float[Tensor, "K W"], values: Float[Tensor, "K W"], blocks: Sequence[Block], heads: int
) -> Float[Tensor, "Q W"]:
    """Attention of each sequence to the one that it reads: one call a block, so that no mask and no padding is needed."""
    outputs = []
    asking, read = 0, 0
    for count, ask, reads in blocks:
        query = _by_head(queries[asking : asking + count * ask], count, heads)
        key, value = (_by_head(side[read : read + count * reads], count, heads) for side in (keys, values))
        context = functional.scaled_dot_product_attention(query, key, value)
        outputs.append(context.transpose(1, 2).reshape(count * ask, -1))
        asking, read = asking + count * ask, read + count * reads
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def _by_head(rows: Float[Tensor, "R W"], sequences: int, heads: int) -> Float[Tensor, "C H T D"]:
    return rows.view(sequences, len(rows) // sequences, heads, -1).transpose(1, 2)
