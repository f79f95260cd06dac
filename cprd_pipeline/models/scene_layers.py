"""Blocks that the demo world's student and teacher share: 48 px pictures to 9 tokens, captions to masked tokens.

Every block knows its own initial weights (`reset_parameters`), so that `SceneModel` needs no table of them. They matter:
with the usual standard deviation of 0.02 for embeddings and positions these small models do not take off.

Shape suffixes: B batch, T text tokens, P image tokens, L either, W width, H heads, D width of a head.
"""

from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

IMAGE_SIZE = 48
IMAGE_TOKENS = 9
MAX_TEXT_TOKENS = 24

_EMBEDDING_STD = 0.5
_IMAGE_POSITION_STD = 0.5
_TEXT_POSITION_STD = 0.3

KeysValues = tuple[Float[Tensor, "B H L D"], Float[Tensor, "B H L D"]]


class SceneModel(PreTrainedModel):  # type: ignore[misc]
    """What transformers needs to know of both models: how weights begin, and that attention is PyTorch's own."""

    main_input_name = "pixel_values"
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        """Replace transformers' normal(0, 0.02) by each module's own initialisation."""
        if hasattr(module, "reset_parameters"):
            cast("nn.Linear", module).reset_parameters()


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be made once and used for many queries."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def keys_values(self, states: Float[Tensor, "B L W"]) -> KeysValues:
        """Keys and values of what is looked at."""
        keys, values = self.key_value(states).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return keys, values

    def forward(
        self, states: Float[Tensor, "B T W"], keys_values: KeysValues, mask: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B T W"]:
        """Let each position look at the keys.

        Args:
            states: Who looks.
            keys_values: From `keys_values`, with the same batch.
            mask: True where there is something to look at; None for everywhere.
        """
        queries = self.query(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        seen = None if mask is None else mask[:, None, None, :]
        found = functional.scaled_dot_product_attention(queries, *keys_values, attn_mask=seen)
        output: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return output


class Layer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, states: Float[Tensor, "B L W"], mask: Bool[Tensor, "B L"] | None = None) -> Float[Tensor, "B L W"]:
        """One layer over all positions; `mask` is False at padding."""
        states = self.attend(states, mask)
        return self.think(states)

    def think(self, states: Float[Tensor, "B L W"]) -> Float[Tensor, "B L W"]:
        """Feed-forward part with its residual."""
        added: Tensor = self.feed(self.feed_norm(states))
        return states + added

    def attend(
        self, states: Float[Tensor, "B L W"], mask: Bool[Tensor, "B L"] | None, positions: int | None = None
    ) -> Float[Tensor, "B M W"]:
        """Self-attention with its residual, for the first `positions` only (all when None)."""
        normed = self.attention_norm(states)
        looking = slice(positions)
        seen: Tensor = self.attention(normed[:, looking], self.attention.keys_values(normed), mask)
        return states[:, looking] + seen


class ImageTower(nn.Module):
    """A convolution stem that turns 48 x 48 pixels into 3 x 3 tokens, then transformer layers."""

    def __init__(self, width: int, heads: int, layers: int, stem_width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem_width, 4, 4),
            nn.GELU(),
            nn.Conv2d(stem_width, width, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(width, width, 2, 2),
            nn.GELU(),
            nn.Conv2d(width, width, 1),
        )
        self.positions = nn.Parameter(torch.empty(1, IMAGE_TOKENS, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def reset_parameters(self) -> None:
        """Draw the positions."""
        nn.init.normal_(self.positions, std=_IMAGE_POSITION_STD)

    def forward(self, pixel_values: Float[Tensor, "B 3 48 48"]) -> Float[Tensor, "B P W"]:
        """Token states of images; pixels in [-1, 1]."""
        states: Tensor = self.stem(pixel_values).flatten(2).transpose(1, 2) + self.positions
        for layer in self.layers:
            states = layer(states)
        normed: Tensor = self.norm(states)
        return normed


class WordEmbedding(nn.Embedding):
    """An embedding with wider initial weights than transformers' and narrower ones than PyTorch's."""

    def reset_parameters(self) -> None:
        """Draw the weights."""
        nn.init.normal_(self.weight, std=_EMBEDDING_STD)


class TextTower(nn.Module):
    """Word embeddings, positions, transformer layers; position 0 is [CLS]."""

    def __init__(self, vocab_size: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.words = WordEmbedding(vocab_size, width)
        self.positions = nn.Parameter(torch.empty(1, MAX_TEXT_TOKENS, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def reset_parameters(self) -> None:
        """Draw the positions."""
        nn.init.normal_(self.positions, std=_TEXT_POSITION_STD)

    def forward(self, input_ids: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T W"]:
        """Token states of captions; `mask` is False at padding, whose states mean nothing."""
        states = self.words(input_ids) + self.positions[:, : input_ids.shape[1]]
        for layer in self.layers:
            states = layer(states, mask)
        normed: Tensor = self.norm(states)
        return normed


def text_mask(input_ids: Int[Tensor, "B T"], attention_mask: Tensor | None, pad_token_id: int) -> Bool[Tensor, "B T"]:
    """True where a caption has a token; told by the ids where no attention mask is given."""
    return input_ids != pad_token_id if attention_mask is None else attention_mask.bool()


def build_seeded(model_class: type[SceneModel], config: Any, seed: int) -> Any:
    """A model with weights drawn from `seed`, the caller's random state left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config)
