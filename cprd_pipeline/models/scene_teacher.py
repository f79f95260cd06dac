"""The demo world's teacher: a small cross-encoder, and the adapter that makes it a `CrossEncoder`.

Read it as the worked example of bringing one's own teacher: `SceneTeacher`, at the end, is all that the pipeline asks for.

Shape suffixes: I distinct images, N pairs (one caption each), T text tokens, P image tokens, W width, E common space.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPImageProcessorPil, PreTrainedConfig

from cprd_pipeline.models.cross_encoder import CrossEncoder
from cprd_pipeline.models.scene_layers import (
    MAX_TEXT_TOKENS,
    Attention,
    ImageTower,
    KeysValues,
    Layer,
    SceneModel,
    TextTower,
    build_seeded,
    text_mask,
)
from cprd_pipeline.models.scene_processing import build_image_processor, build_tokenizer, words_of

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

    They are trained contrastively, by the best image token of each word; the fusion then starts with every word knowing
    which part of the picture it may mean, which cross-attention alone learns late.
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


class EncodedCaption(NamedTuple):
    """A caption as the text tower leaves it.

    Args:
        states: Token states, [T, W], no padding.
        tokens: Number of tokens before cutting.
    """

    states: Tensor
    tokens: int


class SceneTeacher(CrossEncoder):
    """The scene cross-encoder behind the interface of all teachers.

    Images and captions meet only in `score`, so both towers run once an item; what is left is paid once a pair.

    Args:
        model: The cross-encoder.
        tokenizer: Its tokenizer.
        image_processor: Its image processor.
        device: Where it computes.
        dtype: What it computes with; the head stays at least float32, so that near logits do not fall together.
    """

    def __init__(
        self, model: SceneCrossEncoder, tokenizer: Any, image_processor: Any, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.model = model.to(device=device, dtype=dtype).eval()
        if dtype.itemsize < torch.float32.itemsize:
            self.model.head.float()
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.device = device
        self.dtype = dtype

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> "SceneTeacher":
        """Read a teacher that `train-teacher` or `save` wrote."""
        return cls(
            SceneCrossEncoder.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder),
            CLIPImageProcessorPil.from_pretrained(folder),
            device,
            dtype,
        )

    def save(self, folder: Path) -> None:
        """Write model, tokenizer and image processor the way transformers reads them."""
        for part in (self.model, self.tokenizer, self.image_processor):
            part.save_pretrained(folder)

    @property
    def max_text_tokens(self) -> int:
        """Longest caption in tokens, [CLS] included; longer ones are cut."""
        return MAX_TEXT_TOKENS

    def pixels(self, images: Sequence[Image.Image]) -> Float[Tensor, "B 3 48 48"]:
        """Processed pictures, float32 on the CPU."""
        return torch.as_tensor(self.image_processor(images, return_tensors="pt")["pixel_values"])

    def tokens(self, captions: Sequence[str]) -> list[Tensor]:
        """Token ids of each caption, int64 on the CPU, not cut."""
        encoded = self.tokenizer(list(captions), truncation=False, verbose=False)["input_ids"]
        return [torch.tensor(ids) for ids in encoded]

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """Token states of each image, [P, W]."""
        return list(self.model.image_tower(self.pixels(images).to(self.device, self.dtype)))

    @torch.inference_mode()
    def encode_texts(self, captions: Sequence[str]) -> list[EncodedCaption]:
        """Token states of each caption."""
        full = self.tokens(captions)
        cut = [ids[:MAX_TEXT_TOKENS] for ids in full]
        pad = self.model.config.pad_token_id
        padded = pad_sequence(cut, batch_first=True, padding_value=pad).to(self.device)
        states = self.model.text_tower(padded, text_mask(padded, None, pad))
        return [EncodedCaption(row[: len(kept)], len(ids)) for row, kept, ids in zip(states, cut, full, strict=True)]

    def text_tokens(self, text: EncodedCaption) -> int:
        """Number of tokens of a caption before cutting."""
        return text.tokens

    @torch.inference_mode()
    def score(self, image: Tensor, texts: Sequence[EncodedCaption]) -> Float[Tensor, " N"]:
        """Matching logits of one image with N captions, float32 on the CPU."""
        states = pad_sequence([text.states for text in texts], batch_first=True)
        lengths = torch.tensor([len(text.states) for text in texts], device=self.device)
        mask = torch.arange(states.shape[1], device=self.device) < lengths[:, None]
        rows = torch.zeros(len(texts), dtype=torch.long, device=self.device)
        logits: Tensor = self.model.match(states, mask, image[None], rows)
        return logits.float().cpu()


def build_scene_teacher(captions: Sequence[str], seed: int, device: torch.device, dtype: torch.dtype) -> SceneTeacher:
    """An untrained teacher that knows the words of `captions`."""
    tokenizer = build_tokenizer(words_of(captions))
    model = build_seeded(SceneCrossEncoder, SceneCrossEncoderConfig(vocab_size=len(tokenizer)), seed)
    return SceneTeacher(model, tokenizer, build_image_processor(), device, dtype)
