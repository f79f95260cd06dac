"""The demo world's cross-encoder: a network of transformers' kind, saved and loaded as any other.

Shape letters: I distinct images, N pairs (one caption each), T text tokens, P image tokens, W width, E common space.
"""

import math
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cprd_pipeline.models.scene_layers import Attention, ImageTower, KeysValues, Layer, SceneModel, TextTower, text_mask

_MAX_TOKEN_SCALE = 50.0
_MAX_LOGIT_SCALE = 100.0


class SceneCrossEncoderConfig(PreTrainedConfig):  # type: ignore[misc]
    """Shape of a scene cross-encoder; the defaults are the demo's.

    Args:
        vocab_size: Words of the tokenizer, special ones included.
        width: Width of all layers.
        heads: Attention heads of each layer.
        image_layers: Transformer layers after the convolution stem.
        text_layers: Transformer layers of the text tower.
        cross_layers: Layers in which the caption also looks at the image.
        stem_width: Channels after the first convolution.
        projection_dim: Width of the common spaces (of whole items, and of tokens).
        pad_token_id: Id of [PAD].
    """

    model_type = "scene_cross_encoder"

    def __init__(
        self,
        vocab_size: int = 64,
        width: int = 96,
        heads: int = 4,
        image_layers: int = 1,
        text_layers: int = 1,
        cross_layers: int = 2,
        stem_width: int = 32,
        projection_dim: int = 64,
        pad_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.width = width
        self.heads = heads
        self.image_layers = image_layers
        self.text_layers = text_layers
        self.cross_layers = cross_layers
        self.stem_width = stem_width
        self.projection_dim = projection_dim
        super().__init__(pad_token_id=pad_token_id, **kwargs)


class CrossLayer(Layer):
    """A transformer layer in which text also looks at an image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, heads)

    def fuse(
        self,
        states: Float[Tensor, "N T W"],
        mask: Bool[Tensor, "N T"],
        image: KeysValues,
        positions: int | None = None,
    ) -> Float[Tensor, "N M W"]:
        """One layer; `image` are the keys and values of each pair's image, `positions` as in `attend`."""
        states = self.attend(states, mask, positions)
        seen: Tensor = self.cross_attention(self.cross_norm(states), image)
        return self.think(states + seen)


class TokenMatcher(nn.Module):
    """Similarities between single words and image tokens (FILIP, Yao et al. 2021, arXiv:2111.07783), and their use.

    They are trained contrastively, by the best image token of each word; the fusion then starts with each word knowing
    which part of the picture it may mean.
    """

    def __init__(self, width: int, projection_dim: int) -> None:
        super().__init__()
        self.image = nn.Linear(width, projection_dim)
        self.text = nn.Linear(width, projection_dim)
        self.log_scale = nn.Parameter(torch.empty(()))
        self.merge = nn.Sequential(nn.Linear(3 * width + 1, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def reset_parameters(self) -> None:
        """Set the scale to where it begins."""
        nn.init.constant_(self.log_scale, math.log(10.0))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """Factor of the cosines."""
        return self.log_scale.exp().clamp(max=_MAX_TOKEN_SCALE)

    def tokens(self, states: Float[Tensor, "B L W"], side: nn.Linear) -> Float[Tensor, "B L E"]:
        """Tokens of one side (`image` or `text`) in the common space, of length one."""
        return functional.normalize(side(states), dim=-1)

    def logits(
        self, text: Float[Tensor, "N T W"], mask: Bool[Tensor, "N T"], image: Float[Tensor, "I P W"]
    ) -> Float[Tensor, "I N"]:
        """Scaled mean over a caption's words of the cosine with the best image token, for all images and captions."""
        images, words = self.tokens(image, self.image), self.tokens(text, self.text)
        cosines = images.flatten(0, 1) @ words.flatten(0, 1).T
        best = cosines.view(*images.shape[:2], *words.shape[:2]).amax(1)
        # Means over words lie closer together than the single cosines that `guide` scales.
        return 2 * self.scale * (best * mask).sum(-1) / mask.sum(-1)

    def guide(
        self, text: Float[Tensor, "N T W"], image: Float[Tensor, "I P W"], image_rows: Int[Tensor, " N"]
    ) -> Float[Tensor, "N T W"]:
        """Text states that know the part of their image that each word resembles most."""
        images = self.tokens(image, self.image).index_select(0, image_rows)
        cosines = self.tokens(text, self.text) @ images.transpose(1, 2)
        context = torch.softmax(cosines * self.scale, -1) @ image.index_select(0, image_rows)
        best = cosines.amax(-1, keepdim=True)
        added: Tensor = self.merge(torch.cat([text, context, text * context, best], -1))
        return text + added


class SceneCrossEncoder(SceneModel):
    """Text looks at an image in cross-attention layers; a dual branch on the same towers finds its training negatives."""

    config_class = SceneCrossEncoderConfig

    def __init__(self, config: SceneCrossEncoderConfig) -> None:
        super().__init__(config)
        self.image_tower = ImageTower(config.width, config.heads, config.image_layers, config.stem_width)
        self.text_tower = TextTower(config.vocab_size, config.width, config.heads, config.text_layers)
        self.visual_projection = nn.Linear(config.width, config.projection_dim)
        self.text_projection = nn.Linear(config.width, config.projection_dim)
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.matcher = TokenMatcher(config.width, config.projection_dim)
        self.cross_layers = nn.ModuleList(CrossLayer(config.width, config.heads) for _ in range(config.cross_layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Sequential(nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, 1))
        self.post_init()

    def reset_parameters(self) -> None:
        """Set the contrastive temperature to where it begins."""
        nn.init.constant_(self.logit_scale, math.log(1 / 0.07))

    def embed_images(self, image: Float[Tensor, "I P W"]) -> Float[Tensor, "I E"]:
        """The dual branch's vectors of images, of length one."""
        return functional.normalize(self.visual_projection(image.mean(1)), dim=-1)

    def embed_texts(self, text: Float[Tensor, "N T W"]) -> Float[Tensor, "N E"]:
        """The dual branch's vectors of captions, of length one."""
        return functional.normalize(self.text_projection(text[:, 0]), dim=-1)

    def dual_logits(self, text: Float[Tensor, "N T W"], image: Float[Tensor, "I P W"]) -> Float[Tensor, "I N"]:
        """Scaled cosines of the dual branch for all images and captions."""
        scale = self.logit_scale.exp().clamp(max=_MAX_LOGIT_SCALE)
        return self.embed_images(image) @ self.embed_texts(text).T * scale

    def get_image_features(self, pixel_values: Float[Tensor, "I 3 48 48"]) -> BaseModelOutputWithPooling:
        """The dual branch as CLIP's interface has it, so that the teacher can mine: vectors of images as `pooler_output`."""
        states = self.image_tower(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=self.embed_images(states))

    def get_text_features(self, input_ids: Int[Tensor, "N T"], attention_mask: Tensor | None = None) -> BaseModelOutputWithPooling:
        """The same for captions."""
        states = self.text_tower(input_ids, text_mask(input_ids, attention_mask, self.config.pad_token_id))
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=self.embed_texts(states))

    @property
    def head_dtype(self) -> torch.dtype:
        """Number type of the head, which may be wider than that of the rest."""
        return next(self.head.parameters()).dtype

    def match(
        self,
        text: Float[Tensor, "N T W"],
        mask: Bool[Tensor, "N T"],
        image: Float[Tensor, "I P W"],
        image_rows: Int[Tensor, " N"],
    ) -> Float[Tensor, " N"]:
        """Matching logits of pairs.

        Args:
            text: Text tower's states of each pair's caption.
            mask: False at padding.
            image: Image tower's states of the distinct images.
            image_rows: Which of them each pair is about.
        """
        states = self.matcher.guide(text, image, image_rows)
        layers = [cast("CrossLayer", layer) for layer in self.cross_layers]
        for layer in layers:
            # Keys and values once an image. index_select rather than indexing, whose gradient adds up in any order.
            keys, values = (of_image.index_select(0, image_rows) for of_image in layer.cross_attention.keys_values(image))
            # Only [CLS] is read after the last layer.
            states = layer.fuse(states, mask, (keys, values), 1 if layer is layers[-1] else None)
        logits: Tensor = self.head(self.norm(states[:, 0]).to(self.head_dtype))
        return logits.squeeze(-1)

    def forward(
        self, input_ids: Int[Tensor, "N T"], pixel_values: Float[Tensor, "N 3 48 48"], attention_mask: Tensor | None = None
    ) -> Float[Tensor, " N"]:
        """Matching logits of caption i with image i."""
        mask = text_mask(input_ids, attention_mask, self.config.pad_token_id)
        rows = torch.arange(len(input_ids), device=input_ids.device)
        return self.match(self.text_tower(input_ids, mask), mask, self.image_tower(pixel_values), rows)


AutoConfig.register("scene_cross_encoder", SceneCrossEncoderConfig)
AutoModel.register(SceneCrossEncoderConfig, SceneCrossEncoder)
