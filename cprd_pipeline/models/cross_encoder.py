"""What a teacher is: one small class that encodes an image once and scores captions against it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from PIL import Image
from torch import Tensor


class CrossEncoder(ABC):
    """A teacher. Subclass it to bring an own one; `encode_images`, `encode_texts` and `score` are the whole job.

    A pair's score must not depend on the other pairs of a call: no batch statistics, no sampling, padding masked.

    Attributes:
        roles: `both` when score(image, caption) has one value; `i2t` or `t2i` when it depends on who asks.
        version: Raised by the author whenever the same weights would give other scores; part of the fingerprint.
    """

    roles: ClassVar[Literal["both", "i2t", "t2i"]] = "both"
    version: ClassVar[int] = 1

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
