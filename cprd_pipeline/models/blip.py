"""BLIP's image-text matching head (Li et al. 2022, arXiv:2201.12086) as a teacher.

What depends on the image alone is computed once: the vision tower, and the keys and values of all cross-attention layers.
What depends on the pair runs on captions without padding (see `packing`), and the last layer on the first token only, since
that is all the head reads. Equal to a plain call of transformers' BlipForImageTextRetrieval per pair up to rounding.

Shape suffixes: B images, S image tokens, T tokens of all captions of a call, N captions, L layers, H heads, D head width,
W width of the text encoder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import BlipForImageTextRetrieval, BlipImageProcessorPil

from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.blip_folder import BlipOptions, first_id, load_parts, text_limit, text_shape
from cprd_pipeline.models.cross_encoder import CrossEncoder
from cprd_pipeline.models.packing import Packed, attend_within, pack
from cprd_pipeline.models.preprocessing import load_tokenizer

_DEFAULTS = BlipOptions()


class BlipText(NamedTuple):
    """A caption as token ids.

    Args:
        ids: int64 [at least 1], cut at the maximum length, on the CPU.
        tokens: Number of tokens before cutting.
    """

    ids: Tensor
    tokens: int


class BlipTeacher(CrossEncoder):
    """BLIP with its matching head; the score is logit[match] - logit[no match].

    Args:
        model: The model; its self-attention weights become views of fused ones.
        tokenizer: Its tokenizer.
        image_processor: Its image processor.
        device: Where it computes.
        dtype: What it computes with; the head stays at least float32, so that near logits do not fall together.
        chosen: First token and maximum length.
    """

    options: ClassVar[frozenset[str]] = frozenset(BlipOptions._fields)

    def __init__(
        self,
        model: BlipForImageTextRetrieval,
        tokenizer: Any,
        image_processor: BlipImageProcessorPil,
        device: torch.device,
        dtype: torch.dtype,
        chosen: BlipOptions = _DEFAULTS,
    ) -> None:
        self.model = model.to(device=device, dtype=dtype).eval()
        self.model.itm_head.to(torch.promote_types(dtype, torch.float32))
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.device = device
        self.dtype = dtype
        text = self.model.config.text_config
        self._limit = text_limit(tokenizer, text.max_position_embeddings, chosen.max_text_tokens)
        self._first_id = first_id(tokenizer, text.vocab_size, chosen.first_token)
        self._layers = [_PackedLayer(layer, text.num_attention_heads) for layer in self.model.text_encoder.encoder.layer]
        crossing = [layer.crossattention.self for layer in self.model.text_encoder.encoder.layer]
        self._keys_values = _fuse([part for layer in crossing for part in (layer.key, layer.value)])

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype, **options: Any) -> "BlipTeacher":
        """Read a folder that transformers' `save_pretrained` wrote, or a snapshot from the hub.

        Raises:
            ModelError: A part is missing or does not fit the others.
            SettingsError: The model cannot do what the settings ask for.
        """
        model, tokenizer, image_processor = load_parts(folder)
        return cls(model, tokenizer, image_processor, device, dtype, BlipOptions(**options))

    @classmethod
    def facts(cls, folder: Path, **options: Any) -> dict[str, Any]:
        """Score definition, and what the options come down to; reads the tokenizer, not the weights.

        Raises:
            ModelError: There is no tokenizer in the folder.
            SettingsError: The model cannot do what the settings ask for.
        """
        chosen, tokenizer = BlipOptions(**options), load_tokenizer(folder)
        positions, vocabulary = text_shape(folder)
        return {
            "score": "margin",
            "first_token": first_id(tokenizer, vocabulary, chosen.first_token),
            "max_text_tokens": text_limit(tokenizer, positions, chosen.max_text_tokens),
        }

    @property
    def max_text_tokens(self) -> int:
        """Longest caption in tokens, special ones included; the tokenizer cuts longer ones."""
        return self._limit

    def pixels(self, images: Sequence[Image.Image]) -> Float[Tensor, "B 3 Y X"]:
        """Preprocessed pictures, float32 on the CPU."""
        return torch.as_tensor(self.image_processor(images=list(images), return_tensors="pt")["pixel_values"])

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """Keys and values of all cross-attention layers, [L 2 H S D] for each image."""
        return list(self.image_keys_values(self.pixels(images)))

    @torch.inference_mode()
    def image_keys_values(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B L 2 H S D"]:
        """Keys and values of all cross-attention layers for preprocessed pictures."""
        states = self._see(pixels.to(self.device, self.dtype))
        heads = self.model.config.text_config.num_attention_heads
        flat = functional.linear(states, *self._keys_values)
        by_head = flat.view(*states.shape[:2], len(self._layers), 2, heads, -1)
        return by_head.permute(0, 2, 3, 4, 1, 5).contiguous()

    def encode_texts(self, captions: Sequence[str]) -> list[BlipText]:
        """Token ids of each caption.

        Raises:
            ModelError: The tokenizer leaves nothing of a caption.
        """
        texts = list(captions)
        full = [len(ids) for ids in self.tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
        if 0 in full:
            raise ModelError(f"the tokenizer leaves nothing of the caption {texts[full.index(0)]!r}", expected="at least one token")
        # The tokenizer, not a slice, cuts: it keeps the separator at the end.
        cut = self.tokenizer(texts, truncation=True, max_length=self._limit)["input_ids"]
        encoded = []
        for ids, tokens in zip(cut, full, strict=True):
            row = torch.tensor(ids, dtype=torch.long)
            if self._first_id is not None:
                row[0] = self._first_id
            encoded.append(BlipText(row, tokens))
        return encoded

    def text_tokens(self, text: BlipText) -> int:
        """Number of tokens of a caption before cutting."""
        return text.tokens

    @torch.inference_mode()
    def logits(self, image: Float[Tensor, "L 2 H S D"], texts: Sequence[BlipText]) -> Float[Tensor, "N 2"]:
        """No-match and match logits of one image with N captions, at least float32, on the teacher's device."""
        packed = pack([text.ids for text in texts], self.device)
        embeddings = self.model.text_encoder.embeddings
        states = embeddings.word_embeddings(packed.ids) + embeddings.position_embeddings(packed.positions)
        states = embeddings.LayerNorm(states)
        for number, layer in enumerate(self._layers):
            states = layer(states, image[number], packed, last=number == len(self._layers) - 1)
        head = self.model.itm_head
        logits = torch.empty(len(texts), head.out_features, dtype=head.weight.dtype, device=self.device)
        logits[packed.order] = head(states.to(head.weight.dtype))
        return logits

    def score(self, image: Float[Tensor, "L 2 H S D"], texts: Sequence[BlipText]) -> Float[Tensor, " N"]:
        """Difference of match and no-match logits of one image with N captions, float32 on the CPU."""
        logits = self.logits(image, texts)
        return (logits[:, 1] - logits[:, 0]).float().cpu()

    def _see(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B S V"]:
        """The vision tower with fused attention, which transformers' own BLIP refuses."""
        vision = self.model.vision_model
        states = vision.embeddings(pixels)
        for layer in vision.encoder.layers:
            attention = layer.self_attn
            joined = attention.qkv(layer.layer_norm1(states)).view(*states.shape[:2], 3, attention.num_heads, -1)
            query, key, value = joined.permute(2, 0, 3, 1, 4)
            context = functional.scaled_dot_product_attention(query, key, value, scale=attention.scale)
            states = states + attention.projection(context.transpose(1, 2).flatten(2))
            states = states + layer.mlp(layer.layer_norm2(states))
        seen: Tensor = vision.post_layernorm(states)
        return seen


class _PackedLayer:
    """One layer of the text encoder on packed captions."""

    def __init__(self, layer: Any, heads: int) -> None:
        self._layer = layer
        self._heads = heads
        own = layer.attention.self
        self._weight, self._bias = _fuse([own.query, own.key, own.value])

    def __call__(
        self, states: Float[Tensor, "T W"], image: Float[Tensor, "2 H S D"], packed: Packed, *, last: bool
    ) -> Float[Tensor, "M W"]:
        """States of all tokens, or in the last layer of each caption's first token alone."""
        context = self._within(states, packed, last)
        states = self._layer.attention.output(context, states[packed.first] if last else states)
        crossing = self._layer.crossattention
        query = crossing.self.query(states).view(len(states), self._heads, -1).transpose(0, 1)
        # All captions' tokens are one query axis: the image's keys and values are read once and copied never.
        seen = functional.scaled_dot_product_attention(query[None], image[0][None], image[1][None])[0]
        states = crossing.output(seen.transpose(0, 1).flatten(1), states)
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


def _fuse(layers: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Weight and bias of several linear layers as one; the layers become views of it, so that nothing is held twice."""
    weight = torch.cat([layer.weight.detach() for layer in layers])
    bias = torch.cat([layer.bias.detach() for layer in layers])
    start = 0
    for layer in layers:
        stop = start + layer.out_features
        layer.weight.data, layer.bias.data = weight[start:stop], bias[start:stop]
        start = stop
    return weight, bias
