"""Tokenizer and image processor of a model folder, of one kind on every machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cprd_pipeline.errors import ModelError, first_line
from cprd_pipeline.models.failures import loading_failures

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_IMAGE_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        ModelError: There is none, or it cannot be loaded.
    """
    # Some tokenizer classes are content without their files and know no word then.
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise ModelError(f"{folder}: no tokenizer in it", expected=f"one of {', '.join(_TOKENIZER_FILES)}")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except loading_failures() as error:
        raise ModelError(f"{folder}: its tokenizer cannot be loaded ({first_line(error)})") from error


def load_image_processor(folder: Path) -> Any:
    """The image processor of a model folder, of Pillow's kind.

    Raises:
        ModelError: There is none, or it cannot be loaded.
    """
    if not any((folder / file).is_file() for file in _IMAGE_PROCESSOR_FILES):
        raise ModelError(f"{folder}: no image processor in it", expected=f"one of {', '.join(_IMAGE_PROCESSOR_FILES)}")
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
    except loading_failures() as error:
        raise ModelError(f"{folder}: its image processor cannot be loaded ({first_line(error)})") from error


@dataclass(frozen=True)
class _Preprocessing:
    """Preprocesses a picture; pickles, so that decoding processes can do it.

    Args:
        image_processor: Of transformers, of Pillow's kind.
    """

    image_processor: Any

    @property
    def modules(self) -> tuple[str, ...]:
        """What a process must import for it: with transformers that takes seconds."""
        return (type(self.image_processor).__module__,)


class Pixels(_Preprocessing):
    """Makes pixel values of a picture."""

    def __call__(self, picture: Image.Image) -> Float[Tensor, "3 Y X"]:
        """Preprocessed picture, float32 on the CPU."""
        values = self.image_processor(images=[picture], return_tensors="np")["pixel_values"][0]
        return torch.as_tensor(values).to(torch.float32)


class Patches(_Preprocessing):
    """Makes patches of a picture that keeps its shape (SigLIP 2 NaFlex)."""

    def __call__(self, picture: Image.Image) -> dict[str, Tensor]:
        """Patches as `pixel_values`, padded to one number, with their mask and the picture's shape in patches."""
        made = self.image_processor(images=[picture], return_tensors="pt")
        return {name: made[name][0] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes")}


def stacked(pixels: Sequence[Float[Tensor, "C _ _"]]) -> Float[Tensor, "B C H W"]:
    """Preprocessed pictures as a batch.

    Raises:
        ModelError: They are not of one size.
    """
    for one in pixels:
        check_size(one, pixels[0])
    return torch.stack(list(pixels))


def check_size(pixels: Float[Tensor, "C _ _"], first: Float[Tensor, "C _ _"]) -> None:
    """Refuse a preprocessed picture that is not of another's size.

    Raises:
        ModelError: Both sizes are named.
    """
    if pixels.shape != first.shape:
        sizes = [" x ".join(map(str, one.shape[1:])) for one in (first, pixels)]
        raise ModelError(
            f"the image processor makes one picture {sizes[0]} and another {sizes[1]}",
            expected="pictures of one size",
            do="set height and width of `size`, or do_center_crop, in its preprocessor_config.json",
        )
