"""BLIP's image-text matching head (Li et al. 2022, arXiv:2201.12086) as a teacher.

What depends on the image alone is computed once: the vision tower, and the keys and values of all cross-attention layers.
What depends on the pair runs on captions without padding (see `packing`), and the last layer on the first token only, since
that is all the head reads. Equal to a plain call of transformers' BlipForImageTextRetrieval per pair up to rounding.

Shape suffixes: B images, S image tokens, N captions, L layers, H heads, D head width, E width of the contrastive head.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import BlipForImageTextRetrieval, BlipImageProcessorPil

from cprd_pipeline.models.blip_folder import BlipOptions, first_id, load_parts, text_shape
from cprd_pipeline.models.blip_layers import PackedLayer, fuse, project, see
from cprd_pipeline.models.captions import Caption, text_limit, tokenize
from cprd_pipeline.models.cross_encoder import CrossEncoder
from cprd_pipeline.models.packing import Packed, pack
from cprd_pipeline.models.preprocessing import Pixels, load_tokenizer

_DEFAULTS = BlipOptions()
_WITH_ITC = "match_logit+itc"


class BlipImage(NamedTuple):
    """An image as the matching head sees it.

    Args:
        keys_values: Of all cross-attention layers, [L 2 H S D].
        feature: Of the contrastive head, normalised, at least float32 [E]; empty where the score does not need it.
    """

    keys_values: Tensor
    feature: Tensor


class BlipText(NamedTuple):
    """A caption as the matching head reads it.

    Args:
        caption: Its token ids.
        feature: Of the contrastive head, normalised, at least float32 [E]; empty where the score does not need it.
    """

    caption: Caption
    feature: Tensor


BlipGroup = tuple[BlipImage, Sequence[BlipText]]


class BlipTeacher(CrossEncoder):
    """BLIP with its matching head.

    Args:
        model: The model; its self-attention weights become views of fused ones.
        tokenizer: Its tokenizer.
        image_processor: Its image processor.
        device: Where it computes.
        dtype: What it computes with; the heads stay at least float32, so that near logits do not fall together.
        chosen: Score, first token and maximum length.
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
        for head in (self.model.itm_head, self.model.vision_proj, self.model.text_proj):
            head.to(torch.promote_types(dtype, torch.float32))
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.device = device
        self.dtype = dtype
        self._score = chosen.score
        text = self.model.config.text_config
        self._limit = text_limit(tokenizer, text.max_position_embeddings, chosen.max_text_tokens)
        self._first_id = first_id(tokenizer, text.vocab_size, chosen.first_token)
        self._layers = [PackedLayer(layer, text.num_attention_heads) for layer in self.model.text_encoder.encoder.layer]
        crossing = [layer.crossattention.self for layer in self.model.text_encoder.encoder.layer]
        self._keys_values = fuse([part for layer in crossing for part in (layer.key, layer.value)])

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
            "score": chosen.score,
            "first_token": first_id(tokenizer, vocabulary, chosen.first_token),
            "max_text_tokens": text_limit(tokenizer, positions, chosen.max_text_tokens),
        }

    @property
    def max_text_tokens(self) -> int:
        """Longest caption in tokens, special ones included; the tokenizer cuts longer ones."""
        return self._limit

    @property
    def preprocess(self) -> Pixels:
        """Pixel values of one picture."""
        return Pixels(self.image_processor)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Float[Tensor, "3 Y X"]]) -> list[BlipImage]:
        """Keys and values of all cross-attention layers, and the contrastive feature where it counts."""
        states = see(self.model.vision_model, torch.stack(list(images)).to(self.device, self.dtype))
        flat = functional.linear(states, *self._keys_values)
        by_head = flat.view(*states.shape[:2], len(self._layers), 2, self.model.config.text_config.num_attention_heads, -1)
        keys_values = by_head.permute(0, 2, 3, 4, 1, 5).contiguous()
        features = self._image_features(states) if self._score == _WITH_ITC else states.new_empty(len(states), 0)
        return [BlipImage(*image) for image in zip(keys_values, features, strict=True)]

    @torch.inference_mode()
    def encode_texts(self, captions: Sequence[str]) -> list[BlipText]:
        """Token ids of each caption, and the contrastive feature where it counts.

        Raises:
            ModelError: The tokenizer leaves nothing of a caption.
        """
        texts = tokenize(self.tokenizer, captions, self._limit)
        # Token 0 is [CLS] here whatever `first_token` says: only the matching head reads [ENC].
        features = self._text_features(texts) if self._score == _WITH_ITC else torch.empty(len(texts), 0)
        if self._first_id is not None:
            for text in texts:
                text.ids[0] = self._first_id
        return [BlipText(*text) for text in zip(texts, features, strict=True)]

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Float[Tensor, "3 Y X"]]) -> Float[Tensor, "B E"]:
        """The contrastive head's vectors of preprocessed pictures, of length one, at least float32, on the teacher's device."""
        return self._image_features(see(self.model.vision_model, torch.stack(list(images)).to(self.device, self.dtype)))

    @torch.inference_mode()
    def embed_texts(self, captions: Sequence[str]) -> Float[Tensor, "N E"]:
        """The contrastive head's vectors of captions, of length one, at least float32, on the teacher's device.

        Raises:
            ModelError: The tokenizer leaves nothing of a caption.
        """
        return self._text_features(tokenize(self.tokenizer, captions, self._limit))

    def text_tokens(self, text: BlipText) -> int:
        """Number of tokens of a caption before cutting."""
        return text.caption.tokens

    @torch.inference_mode()
    def logits(self, groups: Sequence[BlipGroup]) -> Float[Tensor, "N 2"]:
        """No-match and match logits of all pairs, group by group, at least float32, on the teacher's device."""
        ids = [text.caption.ids for _, texts in groups for text in texts]
        packed = pack(ids, self.device, [len(texts) for _, texts in groups])
        states = self._read(packed, [image.keys_values for image, _ in groups])
        head = self.model.itm_head
        logits = torch.empty(len(ids), head.out_features, dtype=head.weight.dtype, device=self.device)
        logits[packed.order] = head(states.to(head.weight.dtype))
        return logits

    def score(self, image: BlipImage, texts: Sequence[BlipText]) -> Float[Tensor, " N"]:
        """Scores of one image with N captions, float32 on the CPU."""
        return self.score_groups([(image, texts)])

    @torch.inference_mode()
    def score_groups(self, groups: Sequence[BlipGroup]) -> Float[Tensor, " N"]:
        """Scores of several images, each with captions of its own, in one pass; float32 on the CPU."""
        logits = self.logits(groups)
        if self._score == "margin":
            return (logits[:, 1] - logits[:, 0]).float().cpu()
        if self._score == "match_logit":
            return logits[:, 1].float().cpu()
        return (logits[:, 1] + _cosines(groups)).float().cpu()

    def _read(self, packed: Packed, images: Sequence[Float[Tensor, "L 2 H S D"]]) -> Float[Tensor, "N W"]:
        """The text encoder's last states of each packed caption's first token."""
        embeddings = self.model.text_encoder.embeddings
        states = embeddings.word_embeddings(packed.ids) + embeddings.position_embeddings(packed.positions)
        states = embeddings.LayerNorm(states)
        for number, layer in enumerate(self._layers):
            states = layer(states, packed, [image[number] for image in images], last=number == len(self._layers) - 1)
        read: Tensor = states
        return read

    def _image_features(self, states: Float[Tensor, "B S V"]) -> Float[Tensor, "B E"]:
        return project(self.model.vision_proj, states[:, 0])

    def _text_features(self, texts: Sequence[Caption]) -> Float[Tensor, "N E"]:
        packed = pack([text.ids for text in texts], self.device)
        states = self._read(packed, [])
        return project(self.model.text_proj, states[packed.order.argsort()])


def _cosines(groups: Sequence[BlipGroup]) -> Float[Tensor, " N"]:
    """Of the contrastive head's features, pair by pair, group by group."""
    return torch.cat([torch.stack([text.feature for text in texts]) @ image.feature for image, texts in groups])
