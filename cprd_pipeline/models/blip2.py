"""BLIP-2's image-text matching head (Li et al. 2023, arXiv:2301.12597) as a teacher.

What depends on the image alone is computed once: the vision tower, and the keys and values of all cross-attention layers.
What depends on the pair runs on captions without padding (see `blip2_layers`). Equal to a plain call of transformers'
Blip2ForImageTextRetrieval per pair up to rounding.

Shape suffixes: S image tokens, N captions, Q queries, C layers with cross-attention, H heads, D head width, W width of the
Q-Former, E width of the contrastive head.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import Blip2ForImageTextRetrieval

from cprd_pipeline.models.blip2_folder import Blip2Options, load_parts, text_positions
from cprd_pipeline.models.blip2_layers import QFormer, Sight
from cprd_pipeline.models.captions import Caption, text_limit, tokenize
from cprd_pipeline.models.cross_encoder import CrossEncoder, Group
from cprd_pipeline.models.packing import Packed, Run, pack
from cprd_pipeline.models.preprocessing import Pixels, load_tokenizer

_DEFAULTS = Blip2Options()


class Blip2Image(NamedTuple):
    """An image as the Q-Former sees it.

    Args:
        keys_values: Of all cross-attention layers, [C 2 H S D].
        features: Of the contrastive head, one a query, normalised, at least float32 [Q E]; None where the score needs none.
    """

    keys_values: Tensor
    features: Tensor | None


class Blip2Text(NamedTuple):
    """A caption as the Q-Former reads it.

    Args:
        caption: Its token ids.
        feature: Of the contrastive head, normalised, at least float32 [E]; None where the score needs none.
    """

    caption: Caption
    feature: Tensor | None


Blip2Group = tuple[Blip2Image, Sequence[Blip2Text]]


class Blip2Teacher(CrossEncoder):
    """BLIP-2 with its matching head.

    Args:
        model: The model; the attention weights of its Q-Former become views of fused ones.
        tokenizer: Its tokenizer.
        image_processor: Its image processor.
        device: Where it computes.
        dtype: What it computes with; the heads stay at least float32, so that near logits do not fall together.
        chosen: Score and maximum length.
    """

    options: ClassVar[frozenset[str]] = frozenset(Blip2Options._fields)

    def __init__(
        self,
        model: Blip2ForImageTextRetrieval,
        tokenizer: Any,
        image_processor: Any,
        device: torch.device,
        dtype: torch.dtype,
        chosen: Blip2Options = _DEFAULTS,
    ) -> None:
        self.model = model.to(device=device, dtype=dtype).eval()
        for head in (self.model.itm_head, self.model.vision_projection, self.model.text_projection):
            head.to(torch.promote_types(dtype, torch.float32))
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.device = device
        self.dtype = dtype
        self._score = chosen.score
        self._limit = text_limit(tokenizer, self.model.config.qformer_config.max_position_embeddings, chosen.max_text_tokens)
        self._qformer = QFormer(self.model.qformer)

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype, **options: Any) -> "Blip2Teacher":
        """Read a folder that transformers' `save_pretrained` wrote, or a snapshot from the hub.

        Raises:
            ModelError: A part is missing or does not fit the others.
            SettingsError: The model cannot do what the settings ask for.
        """
        model, tokenizer, image_processor = load_parts(folder)
        return cls(model, tokenizer, image_processor, device, dtype, Blip2Options(**options))

    @classmethod
    def facts(cls, folder: Path, **options: Any) -> dict[str, Any]:
        """Score definition and maximum length; reads configuration and tokenizer, not the weights.

        Raises:
            ModelError: There is no tokenizer in the folder.
            SettingsError: The model cannot do what the settings ask for.
        """
        chosen = Blip2Options(**options)
        limit = text_limit(load_tokenizer(folder), text_positions(folder), chosen.max_text_tokens)
        return {"score": chosen.score, "max_text_tokens": limit}

    @property
    def max_text_tokens(self) -> int:
        """Longest caption in tokens, special ones included; the tokenizer cuts longer ones."""
        return self._limit

    @property
    def preprocess(self) -> Pixels:
        """Pixel values of one picture."""
        return Pixels(self.image_processor)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Float[Tensor, "3 Y X"]]) -> list[Blip2Image]:
        """Keys and values of all cross-attention layers, and the contrastive features where they count."""
        pixels = torch.stack(list(images)).to(self.device, self.dtype)
        keys_values = list(self._qformer.keys_values(self.model.vision_model(pixels).last_hidden_state))
        features: Sequence[Tensor | None] = [None] * len(keys_values)
        if self._score == "match_logit+itc":
            nothing = self.model.query_tokens.new_empty(0, self.model.query_tokens.shape[2])
            places = list(torch.arange(len(keys_values), device=self.device)[:, None])
            states = self._qformer.ask(self._queries(), nothing, [Run(0, len(keys_values), 0)], self._sight(keys_values, places))
            features = _features(self.model.vision_projection, states)
        return [Blip2Image(*image) for image in zip(keys_values, features, strict=True)]

    @torch.inference_mode()
    def encode_texts(self, captions: Sequence[str]) -> list[Blip2Text]:
        """Token ids of each caption, and the contrastive feature where it counts.

        Raises:
            ModelError: The tokenizer leaves nothing of a caption.
        """
        texts = tokenize(self.tokenizer, captions, self._limit)
        features: Sequence[Tensor | None] = [None] * len(texts)
        if self._score == "match_logit+itc":
            packed = pack([text.ids for text in texts], self.device)
            states = self._qformer.read(self._words(packed), packed.runs)
            features = _features(self.model.text_projection, states[packed.first[packed.order.argsort()]])
        return [Blip2Text(*text) for text in zip(texts, features, strict=True)]

    def text_tokens(self, text: Blip2Text) -> int:
        """Number of tokens of a caption before cutting."""
        return text.caption.tokens

    def pair_tokens(self, text: Blip2Text) -> int:
        """The queries are computed with every caption."""
        return len(text.caption.ids) + int(self.model.config.num_query_tokens)

    @torch.inference_mode()
    def logits(self, groups: Sequence[Blip2Group]) -> Float[Tensor, "N 2"]:
        """No-match and match logits of all pairs, group by group, at least float32, on the teacher's device."""
        ids = [text.caption.ids for _, texts in groups for text in texts]
        packed = pack(ids, self.device, [len(texts) for _, texts in groups])
        sight = self._sight([image.keys_values for image, _ in groups], packed.captions_of)
        states = self._qformer.ask(self._queries(), self._words(packed), packed.runs, sight)
        head = self.model.itm_head
        logits = torch.empty(len(ids), head.out_features, dtype=head.weight.dtype, device=self.device)
        # The head is linear: its mean over the queries is its value for their mean.
        logits[packed.order] = head(states.to(head.weight.dtype).mean(1))
        return logits

    def score(self, image: Blip2Image, texts: Sequence[Blip2Text]) -> Float[Tensor, " N"]:
        """Scores of one image with N captions, float32 on the CPU."""
        return self.score_groups([(image, texts)])

    @torch.inference_mode()
    def score_groups(self, groups: Sequence[Blip2Group]) -> Float[Tensor, " N"]:
        """Scores of several images, each with captions of its own, in one pass; float32 on the CPU."""
        logits = self.logits(groups)
        if self._score == "margin":
            return (logits[:, 1] - logits[:, 0]).float().cpu()
        if self._score == "match_logit":
            return logits[:, 1].float().cpu()
        return (logits[:, 1] + _cosines(groups)).float().cpu()

    def _queries(self) -> Float[Tensor, "1 Q W"]:
        """The learned queries as they enter the first layer."""
        queries: Tensor = self.model.qformer.layernorm(self.model.query_tokens)
        return queries

    def _words(self, packed: Packed) -> Float[Tensor, "T W"]:
        """The words of packed captions as they enter the first layer."""
        embeddings = self.model.embeddings
        states = embeddings.word_embeddings(packed.ids) + embeddings.position_embeddings(packed.positions)
        words: Tensor = self.model.qformer.layernorm(states)
        return words

    def _sight(self, images: Sequence[Float[Tensor, "C 2 H S D"]], places: Sequence[Tensor]) -> Sight:
        """Each image with the queries of the captions at the places that `Packed` tells."""
        count = self.model.query_tokens.shape[1]
        steps = torch.arange(count, device=self.device)
        return Sight(images, [(captions[:, None] * count + steps).flatten() for captions in places])


def _features(head: Any, states: Float[Tensor, "... W"]) -> list[Tensor]:
    """Normalised contrastive features, one value for each of the first axis."""
    return list(functional.normalize(head(states.to(head.weight.dtype)), dim=-1))


def _cosines(groups: Sequence[Group]) -> Float[Tensor, " N"]:
    """Of each caption with the query of its image that is nearest to it, pair by pair, group by group."""
    pairs = [(image.features, torch.stack([text.feature for text in texts])) for image, texts in groups]
    return torch.cat([(of_texts @ of_image.T).amax(1) for of_image, of_texts in pairs])
