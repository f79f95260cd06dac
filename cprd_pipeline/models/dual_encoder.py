"""A dual encoder: one vector an image, one vector a caption, whatever family of transformers it is of.

Shape suffixes: B batch, C channels, H height, W width, T tokens, D width of the common space.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel

import cprd_pipeline.models.scene_student  # noqa: F401  registers the demo's student with AutoModel
from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.loading import model_fingerprint, read_config, resolve_model, without_bars
from cprd_pipeline.models.preprocessing import load_image_processor, load_tokenizer

ADAPTER_VERSION = 1
"""Raised whenever the same weights would give other embeddings through this file; part of the fingerprint."""

# SigLIP reads the state at the last position and was trained on captions padded to the full length without a mask.
# Padded only to the longest of a batch, a caption's vector would depend on its company.
_PADDED_TO_MAXIMUM = frozenset({"siglip", "siglip2"})
_PARTS = ("get_image_features", "get_text_features", "logit_scale")
# Tokenizers that know no limit report 10^30.
_NO_LIMIT = 1_000_000


class DualEncoder:
    """A model with two towers, its tokenizer and its image processor.

    Args:
        model: CLIP-like model of transformers: `get_image_features`, `get_text_features`, `logit_scale`.
        tokenizer: Its tokenizer, with a padding token.
        image_processor: Its image processor, of Pillow's kind: torchvision's resizes otherwise.
        device: Where the model shall be.
        dtype: Number type of its weights.
        fingerprint: Names the weights and the preprocessing as they were loaded; empty for a model that was never saved.

    Raises:
        ModelError: The model lacks one of the towers, or the tokenizer or image processor does not fit.
    """

    def __init__(
        self, model: Any, tokenizer: Any, image_processor: Any, device: torch.device, dtype: torch.dtype, fingerprint: str = ""
    ) -> None:
        lacking = [part for part in _PARTS if not hasattr(model, part)]
        if lacking:
            raise ModelError(
                f"{type(model).__name__} is not a dual encoder: it has no {', '.join(lacking)}",
                expected="a CLIP-like model (CLIP, SigLIP, VisionTextDualEncoder)",
            )
        _check_image_processor(image_processor)
        self.model = model.to(device=device, dtype=dtype)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.device = device
        self.dtype = dtype
        self.fingerprint = fingerprint
        self.max_text_tokens = _max_text_tokens(model.config, tokenizer)
        self._pads_to_maximum = model.config.model_type in _PADDED_TO_MAXIMUM

    @classmethod
    def load(cls, name: str, device: torch.device, dtype: torch.dtype) -> "DualEncoder":
        """Read a dual encoder from a local folder or from the hub; it is in evaluation mode.

        Raises:
            ModelError: No such model, no dual encoder, or a part of it (weights, tokenizer, image processor) is missing.
        """
        folder = resolve_model(name)
        read_config(folder)
        tokenizer, image_processor = load_tokenizer(folder), load_image_processor(folder)
        return cls(_load_model(folder), tokenizer, image_processor, device, dtype, encoder_fingerprint(name, dtype))

    @property
    def logit_scale(self) -> nn.Parameter:
        """Logarithm of the factor by which the contrastive loss multiplies similarities."""
        scale: nn.Parameter = self.model.logit_scale
        return scale

    def save(self, folder: Path) -> None:
        """Write a folder that `AutoModel`, `AutoTokenizer` and `AutoImageProcessor` read with `from_pretrained`."""
        with without_bars():
            self.model.save_pretrained(folder)
        # The last call's padding and cutting would be written too, and the file would depend on what was embedded last.
        self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.backend_tokenizer.no_truncation()
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    def pixels(self, images: Sequence[Image.Image]) -> Float[Tensor, "B C H W"]:
        """Preprocessed RGB pictures, on the CPU."""
        pixel_values: Tensor = self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        return pixel_values.to(torch.float32)

    def tokens(self, captions: Sequence[str]) -> dict[str, Int[Tensor, "B T"]]:
        """`input_ids` and `attention_mask`, on the CPU; longer captions are cut at `max_text_tokens`."""
        padding = "max_length" if self._pads_to_maximum else "longest"
        batch = self.tokenizer(
            list(captions), padding=padding, truncation=True, max_length=self.max_text_tokens, return_tensors="pt"
        )
        ids: Tensor = batch["input_ids"]
        mask = torch.ones_like(ids) if self._pads_to_maximum else batch["attention_mask"]
        return {"input_ids": ids, "attention_mask": mask}

    def token_counts(self, captions: Sequence[str]) -> npt.NDArray[np.int64]:
        """Number of tokens of each caption after cutting, special ones included: int64 [N]."""
        ids = self.tokenizer(list(captions), truncation=True, max_length=self.max_text_tokens)["input_ids"]
        return np.fromiter((len(row) for row in ids), dtype=np.int64, count=len(captions))

    def embed_images(self, pixel_values: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Vectors of length one on the model's device, at least float32; gradients flow when they are enabled."""
        return self._normalise(self.model.get_image_features(pixel_values=pixel_values.to(self.device, self.dtype)))

    def embed_texts(self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """Vectors of length one on the model's device, at least float32; gradients flow when they are enabled."""
        ids, mask = input_ids.to(self.device), attention_mask.to(self.device)
        return self._normalise(self.model.get_text_features(input_ids=ids, attention_mask=mask))

    def _normalise(self, output: Any) -> Tensor:
        features = output if isinstance(output, Tensor) else output.pooler_output
        if features is None or features.ndim != 2:
            shape = None if features is None else tuple(features.shape)
            raise ModelError(
                f"{type(self.model).__name__} gives features of shape {shape}", expected="one pooled vector an item, [B, D]"
            )
        # The length of a bfloat16 vector is not one to more than two digits.
        return functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def encoder_fingerprint(name: str, dtype: torch.dtype) -> str:
    """Fingerprint of a dual encoder, without loading it.

    Args:
        name: Local folder or hub name.
        dtype: Number type it computes with.

    Raises:
        ModelError: No such model.
    """
    facts = {"role": "dual_encoder", "dtype": str(dtype).removeprefix("torch."), "adapter": ADAPTER_VERSION}
    return model_fingerprint(resolve_model(name), **facts)


def _load_model(folder: Path) -> Any:
    try:
        # Without remote code: a class that transformers does not ship is refused.
        with without_bars():
            model, notes = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{folder}: cannot be loaded ({reason})", expected="a model folder of transformers") from error
    missing = sorted(notes["missing_keys"])
    if missing:
        # transformers would go on with random numbers in their place.
        raise ModelError(
            f"{folder}: {len(missing)} weights are missing (first: {missing[0]})",
            expected=f"all weights of {type(model).__name__}",
            do="download the model again, or name the folder of a dual encoder",
        )
    return model


def _check_image_processor(image_processor: Any) -> None:
    name = type(image_processor).__name__
    if getattr(image_processor, "backend", None) != "pil":
        raise ModelError(
            f"image processor {name} does not work with Pillow",
            expected="a Pillow image processor (...Pil), so that all machines see the same pixels",
        )
    if list(image_processor.model_input_names) != ["pixel_values"]:
        raise ModelError(
            f"image processor {name} gives {', '.join(image_processor.model_input_names)}",
            expected="pixel_values alone: pictures of one fixed size",
        )


def _max_text_tokens(config: Any, tokenizer: Any) -> int:
    positions = getattr(getattr(config, "text_config", config), "max_position_embeddings", _NO_LIMIT)
    limit = min(int(positions), int(tokenizer.model_max_length))
    if limit >= _NO_LIMIT:
        raise ModelError(f"{type(tokenizer).__name__}: its longest caption is not known", expected="model_max_length")
    if tokenizer.pad_token_id is None:
        raise ModelError(f"{type(tokenizer).__name__}: it has no padding token", expected="pad_token")
    return limit
