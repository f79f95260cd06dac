"""Tokenizer and image processor of a model folder, of one kind on every machine."""

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
class Pixels:
    """Makes pixel values of a picture; pickles, so that decoding processes can do it.

    Args:
        image_processor: Of transformers, of Pillow's kind.
    """

    image_processor: Any

    def __call__(self, picture: Image.Image) -> Float[Tensor, "3 Y X"]:
        """Preprocessed picture, float32 on the CPU."""
        values = self.image_processor(images=[picture], return_tensors="np")["pixel_values"][0]
        return torch.as_tensor(values)
