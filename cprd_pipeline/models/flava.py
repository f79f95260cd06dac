"""FLAVA's image-text matching head (Singh et al. 2022, arXiv:2112.04482) as a teacher.

Both towers and their projections into the multimodal encoder are computed once an item. Its six layers see [CLS], the image and
the caption as one sequence, so they are paid once a pair, but without padding (see `packing`): the first layer's projections
are computed once a token and call, and the last layer runs on the first token only, since that is all the head reads. Equal to
a plain call of transformers' FlavaForPreTraining per pair, or per padded and masked batch, up to rounding.

Shape suffixes: B images, N pairs, S tokens of an image or a caption, T tokens of all captions side by side, W width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import FlavaForPreTraining, FlavaImageProcessorPil

from cprd_pipeline.models.captions import tokenize
from cprd_pipeline.models.cross_encoder import CrossEncoder, Group
from cprd_pipeline.models.flava_folder import FlavaMatcher, FlavaOptions, load_parts, resolve, text_positions
from cprd_pipeline.models.packing import Packed, Run, pack
from cprd_pipeline.models.preprocessing import Pixels, load_tokenizer
from cprd_pipeline.models.single_stream import JoinedText, PreNormLayer, apart, read_pairs, through

_DEFAULTS = FlavaOptions()


class FlavaTeacher(CrossEncoder):
    """FLAVA with its matching head.

    Args:
        model: The model; its towers and its matching head are kept, and nothing else.
        tokenizer: Its tokenizer.
        image_processor: Its image processor.
        device: Where it computes.
        dtype: What it computes with; the head stays at least float32, so that near logits do not fall together.
        chosen: Score and maximum length.
    """

    options: ClassVar[frozenset[str]] = frozenset(FlavaOptions._fields)

    def __init__(
        self,
        model: FlavaMatcher | FlavaForPreTraining,
        tokenizer: Any,
        image_processor: FlavaImageProcessorPil,
        device: torch.device,
        dtype: torch.dtype,
        chosen: FlavaOptions = _DEFAULTS,
    ) -> None:
        resolved = resolve(tokenizer, model.config.text_config.max_position_embeddings, chosen)
        self.flava: Any = model.flava.to(device=device, dtype=dtype).eval()
        self.head: Any = model.itm_head.to(device=device, dtype=torch.promote_types(dtype, torch.float32)).eval()
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.device = device
        self.dtype = dtype
        self._score = resolved["score"]
        self._limit: int = resolved["max_text_tokens"]
        towers = (self.flava.image_model, self.flava.text_model, self.flava.multimodal_model)
        self._image_layers, self._text_layers, self._joint_layers = (
            [PreNormLayer(layer) for layer in tower.encoder.layer] for tower in towers
        )

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype, **options: Any) -> "FlavaTeacher":
        """Read a folder that transformers' `save_pretrained` wrote, or a snapshot from the hub.

        Raises:
            ModelError: A part is missing or does not fit the others.
            SettingsError: The model cannot do what the settings ask for.
        """
        model, tokenizer, image_processor = load_parts(folder)
        return cls(model, tokenizer, image_processor, device, dtype, FlavaOptions(**options))

    @classmethod
    def facts(cls, folder: Path, **options: Any) -> dict[str, Any]:
        """Score definition, and what the options come down to; reads the tokenizer, not the weights.

        Raises:
            ModelError: There is no tokenizer in the folder.
            SettingsError: The model cannot do what the settings ask for.
        """
        return resolve(load_tokenizer(folder), text_positions(folder), FlavaOptions(**options))

    @property
    def max_text_tokens(self) -> int:
        """Longest caption in tokens, special ones included; the tokenizer cuts longer ones."""
        return self._limit

    @property
    def preprocess(self) -> Pixels:
        """Pixel values of one picture."""
        return Pixels(self.image_processor)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Float[Tensor, "3 Y X"]]) -> list[Tensor]:
        """[CLS] of the multimodal encoder and the projected states of each image, [S W]."""
        states = self.flava.image_model.embeddings(torch.stack(list(images)).to(self.device, self.dtype))
        count, length, _ = states.shape
        flat = through(self._image_layers, states.flatten(0, 1), [Run(0, count, length)])
        projected = self.flava.image_to_mm_projection(flat).unflatten(0, (count, length))
        joint = self.flava.multimodal_model
        if joint.use_cls_token:
            projected = torch.cat([joint.cls_token.expand(count, -1, -1), projected], dim=1)
        return list(projected)

    @torch.inference_mode()
    def encode_texts(self, captions: Sequence[str]) -> list[JoinedText]:
        """Projected states of each caption.

        Raises:
            ModelError: The tokenizer leaves nothing of a caption.
        """
        texts = tokenize(self.tokenizer, captions, self._limit)
        packed = pack([text.ids for text in texts], self.device)
        states = through(self._text_layers, self._embed(packed), packed.runs)
        projected = apart(self.flava.text_to_mm_projection(states), packed)
        return [JoinedText(states, text.tokens) for states, text in zip(projected, texts, strict=True)]

    def text_tokens(self, text: JoinedText) -> int:
        """Number of tokens of a caption before cutting."""
        return text.tokens

    @torch.inference_mode()
    def logits(self, groups: Sequence[Group]) -> Float[Tensor, "N 2"]:
        """No-match and match logits of all pairs, group by group, at least float32, on the teacher's device."""
        first = read_pairs(self._joint_layers, [(image, text.states) for image, texts in groups for text in texts])
        states = self.flava.multimodal_model.layernorm(first)
        # The head picks token 0 of a sequence by itself: here every sequence is down to it.
        logits: Tensor = self.head(states.to(torch.promote_types(self.dtype, torch.float32))[:, None])
        return logits

    def score(self, image: Float[Tensor, "S W"], texts: Sequence[JoinedText]) -> Float[Tensor, " N"]:
        """Scores of one image with N captions, float32 on the CPU."""
        return self.score_groups([(image, texts)])

    def score_groups(self, groups: Sequence[Group]) -> Float[Tensor, " N"]:
        """Scores of several images, each with captions of its own, in one pass; float32 on the CPU."""
        logits = self.logits(groups)
        score = logits[:, 1] - logits[:, 0] if self._score == "margin" else logits[:, 1]
        return score.float().cpu()

    def _embed(self, packed: Packed) -> Float[Tensor, "T W"]:
        embeddings = self.flava.text_model.embeddings
        states = embeddings.word_embeddings(packed.ids) + embeddings.token_type_embeddings.weight[0]
        embedded: Tensor = embeddings.LayerNorm(states + embeddings.position_embeddings(packed.positions))
        return embedded
