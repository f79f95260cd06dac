"""ViLT's retrieval head (Kim et al. 2021, arXiv:2102.03334) as a teacher.

Caption and image are one sequence from the first layer on, so only the embeddings, and the first layer's projections within a
call, are shared among pairs; the rest is paid once a pair, without padding, and in the last layer for the first token only.

Transformers draws the patches with `multinomial`: without a limit (`max_image_length` -1) that only turns their order round,
which attention does not see, so here they stand in order; with a limit the score would be random, and the model is refused.
Each picture keeps its own size, as in a plain call of ViltForImageAndTextRetrieval for one pair, which is what the scores
equal up to rounding; a padded and masked batch gives the same.

Shape suffixes: N pairs, S tokens of an image or a caption, T tokens of all captions, W width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import ViltForImageAndTextRetrieval, ViltImageProcessorPil

from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.captions import text_limit, tokenize
from cprd_pipeline.models.cross_encoder import CrossEncoder, Group
from cprd_pipeline.models.loading import load_whole, read_config
from cprd_pipeline.models.packing import pack
from cprd_pipeline.models.preprocessing import Pixels, load_image_processor, load_tokenizer
from cprd_pipeline.models.single_stream import JoinedText, PreNormLayer, apart, read_pairs

_EXPECTED = "ViLT with its retrieval head, such as dandelin/vilt-b32-finetuned-coco"

# Default of ViltConfig, which a config.json may leave out.
_DEFAULT_POSITIONS = 40


class ViltTeacher(CrossEncoder):
    """ViLT with its retrieval head; the score is its one logit.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        image_processor: Its image processor.
        device: Where it computes.
        dtype: What it computes with; pooler and head stay at least float32, so that near logits do not fall together.
        max_text_tokens: Longest caption in tokens; null for the model's own limit.
    """

    options: ClassVar[frozenset[str]] = frozenset({"max_text_tokens"})

    def __init__(
        self,
        model: ViltForImageAndTextRetrieval,
        tokenizer: Any,
        image_processor: ViltImageProcessorPil,
        device: torch.device,
        dtype: torch.dtype,
        max_text_tokens: int | None = None,
    ) -> None:
        self.model = model.to(device=device, dtype=dtype).eval()
        for part in (self.model.vilt.pooler, self.model.rank_output):
            part.to(torch.promote_types(dtype, torch.float32))
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.device = device
        self.dtype = dtype
        self._limit = text_limit(tokenizer, model.config.max_position_embeddings, max_text_tokens)
        self._layers = [PreNormLayer(layer) for layer in self.model.vilt.encoder.layer]

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype, **options: Any) -> "ViltTeacher":
        """Read a folder that transformers' `save_pretrained` wrote, or a snapshot from the hub.

        Raises:
            ModelError: A part is missing, or the model draws patches at random.
            SettingsError: The model cannot do what the settings ask for.
        """
        model = load_whole(ViltForImageAndTextRetrieval, folder, _EXPECTED)
        if model.config.max_image_length >= 0:
            raise ModelError(
                f"{folder}: max_image_length is {model.config.max_image_length}, so it draws patches at random",
                expected="-1",
                do="set it in config.json; all patches are read then",
            )
        return cls(model, load_tokenizer(folder), load_image_processor(folder), device, dtype, **options)

    @classmethod
    def facts(cls, folder: Path, **options: Any) -> dict[str, Any]:
        """Score definition, and what the options come down to; reads the tokenizer, not the weights.

        Raises:
            ModelError: There is no tokenizer in the folder.
            SettingsError: The model cannot do what the settings ask for.
        """
        positions = read_config(folder).get("max_position_embeddings", _DEFAULT_POSITIONS)
        limit = text_limit(load_tokenizer(folder), positions, options.get("max_text_tokens"))
        return {"score": "match_logit", "max_text_tokens": limit}

    @property
    def max_text_tokens(self) -> int:
        """Longest caption in tokens, special ones included; the tokenizer cuts longer ones."""
        return self._limit

    @property
    def preprocess(self) -> Pixels:
        """Pixel values of one picture, of a size that depends on its own."""
        return Pixels(self.image_processor)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Float[Tensor, "3 _ _"]]) -> list[Tensor]:
        """Embeddings of the [CLS] and the patches of each image, [S W]."""
        return [self._embed_image(pixels.to(self.device, self.dtype)) for pixels in images]

    @torch.inference_mode()
    def encode_texts(self, captions: Sequence[str]) -> list[JoinedText]:
        """Embeddings of each caption.

        Raises:
            ModelError: The tokenizer leaves nothing of a caption.
        """
        texts = tokenize(self.tokenizer, captions, self._limit)
        packed = pack([text.ids for text in texts], self.device)
        embeddings = self.model.vilt.embeddings
        words = embeddings.text_embeddings
        states = words.word_embeddings(packed.ids) + words.token_type_embeddings.weight[0]
        states = words.LayerNorm(states + words.position_embeddings(packed.positions))
        states = apart(states + embeddings.token_type_embeddings.weight[0], packed)
        return [JoinedText(own, text.tokens) for own, text in zip(states, texts, strict=True)]

    def text_tokens(self, text: JoinedText) -> int:
        """Number of tokens of a caption before cutting."""
        return text.tokens

    @torch.inference_mode()
    def logits(self, groups: Sequence[Group]) -> Float[Tensor, " N"]:
        """Match logits of all pairs, group by group, at least float32, on the teacher's device."""
        first = read_pairs(self._layers, [(text.states, image) for image, texts in groups for text in texts])
        states = self.model.vilt.layernorm(first).to(torch.promote_types(self.dtype, torch.float32))
        # The pooler picks token 0 of a sequence by itself: here every sequence is down to it.
        logits: Tensor = self.model.rank_output(self.model.vilt.pooler(states[:, None]))
        return logits[:, 0]

    def score(self, image: Float[Tensor, "S W"], texts: Sequence[JoinedText]) -> Float[Tensor, " N"]:
        """Match logits of one image with N captions, float32 on the CPU."""
        return self.score_groups([(image, texts)])

    def score_groups(self, groups: Sequence[Group]) -> Float[Tensor, " N"]:
        """Match logits of several images, each with captions of its own, in one pass; float32 on the CPU."""
        return self.logits(groups).float().cpu()

    def _embed_image(self, pixels: Float[Tensor, "3 Y X"]) -> Float[Tensor, "S W"]:
        embeddings = self.model.vilt.embeddings
        patches = embeddings.patch_embeddings(pixels[None])
        side = self.model.config.image_size // self.model.config.patch_size
        grid = embeddings.position_embeddings[:, 1:].transpose(1, 2).view(1, -1, side, side)
        positions = functional.interpolate(grid, size=patches.shape[2:], mode="bilinear", align_corners=True)
        first = embeddings.cls_token[0] + embeddings.position_embeddings[0, :1]
        states = torch.cat([first, (patches + positions)[0].flatten(1).transpose(0, 1)])
        embedded: Tensor = states + embeddings.token_type_embeddings.weight[1]
        return embedded
