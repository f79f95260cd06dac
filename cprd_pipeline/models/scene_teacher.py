"""The demo world's teacher: the adapter that makes a small cross-encoder a `CrossEncoder`.

Read it as the worked example of bringing one's own teacher: `SceneTeacher` is all that the pipeline asks for.

Shape letters: B images, N captions, T text tokens, P image tokens, W width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, CLIPImageProcessorPil

from cprd_pipeline.errors import ModelError, first_line
from cprd_pipeline.models.cross_encoder import CrossEncoder
from cprd_pipeline.models.failures import loading_failures
from cprd_pipeline.models.loading import without_bars
from cprd_pipeline.models.scene_cross_encoder import SceneCrossEncoder, SceneCrossEncoderConfig
from cprd_pipeline.models.scene_layers import MAX_TEXT_TOKENS, build_seeded, text_mask
from cprd_pipeline.models.scene_processing import build_image_processor, build_tokenizer, words_of

_TRAIN = "make it again with `cprd-pipeline train-teacher`"


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
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype, **options: Any) -> "SceneTeacher":
        """Read a teacher that `train-teacher` or `save` wrote.

        Raises:
            ModelError: A part of it is missing or cannot be read.
        """
        try:
            with without_bars():
                model, notes = SceneCrossEncoder.from_pretrained(folder, output_loading_info=True)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            image_processor = CLIPImageProcessorPil.from_pretrained(folder)
        except loading_failures() as error:
            raise ModelError(f"{folder}: cannot be loaded ({first_line(error)})", do=_TRAIN) from error
        if missing := sorted(notes["missing_keys"]):
            # transformers would go on with random numbers in their place.
            raise ModelError(f"{folder}: {len(missing)} weights are missing (first: {missing[0]})", do=_TRAIN)
        return cls(model, tokenizer, image_processor, device, dtype)

    def save(self, folder: Path) -> None:
        """Write model, tokenizer and image processor the way transformers reads them."""
        for part in (self.model, self.tokenizer, self.image_processor):
            with without_bars():
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
