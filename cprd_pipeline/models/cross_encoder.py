"""What a teacher is: one small class that encodes an image once and scores captions against it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor


class CrossEncoder(ABC):
    """A teacher. Subclass it to bring an own one; `load`, `encode_images`, `encode_texts` and `score` are the whole job.

    A pair's score must not depend on the other pairs of a call: no batch statistics, no sampling, padding masked.

    Attributes:
        roles: `both` when score(image, caption) has one value; `i2t` or `t2i` when it depends on who asks.
        options: Names of the settings of the group `teacher` that `load` takes as keyword arguments.
        version: Raised by the author whenever the same weights would give other scores; part of the fingerprint.
    """

    roles: ClassVar[Literal["both", "i2t", "t2i"]] = "both"
    options: ClassVar[frozenset[str]] = frozenset()
    version: ClassVar[int] = 1

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype, **options: Any) -> "CrossEncoder":
        """Read the teacher from its folder, ready to score.

        Args:
            folder: What `teacher.model` names.
            device: Where to compute.
            dtype: Number type of weights and activations.
            **options: The settings that `options` names.
        """

    @classmethod
    def facts(cls, folder: Path, **options: Any) -> dict[str, Any]:
        """What the options add to the teacher's fingerprint, without loading weights.

        Override it where two values mean the same, such as a default and its value spelled out.
        """
        return dict(options)

    @property
    @abstractmethod
    def max_text_tokens(self) -> int:
        """Longest caption in tokens, special tokens included; longer ones are refused or cut, and counted."""

    @abstractmethod
    def encode_images(self, images: Sequence[Image.Image]) -> list[Any]:
        """Everything of the teacher that depends on the image alone, one opaque value an image.

        Args:
            images: RGB pictures as the corpus decoder gives them.
        """

    @abstractmethod
    def encode_texts(self, captions: Sequence[str]) -> list[Any]:
        """Everything of the teacher that depends on the caption alone (at least its token ids), one value a caption."""

    @abstractmethod
    def text_tokens(self, text: Any) -> int:
        """Number of tokens of one encoded caption before cutting: what its scoring costs."""

    @abstractmethod
    def score(self, image: Any, texts: Sequence[Any]) -> Float[Tensor, " N"]:
        """Raw matching logits of one encoded image with N encoded captions.

        Returns:
            float32 on the CPU, higher is better, no sigmoid.
        """
