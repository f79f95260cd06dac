"""What a teacher is: one small class that encodes an image once and scores captions against it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cprd_pipeline.corpus.images import as_it_is

Group = tuple[Any, Sequence[Any]]
"""An encoded image with the encoded captions that are to be scored against it, at least one."""


class CrossEncoder(ABC):
    """A teacher. Subclass it to bring an own one; `load`, `encode_images`, `encode_texts` and `score` are the whole job.

    A pair's score must not depend on the other pairs of a call: no batch statistics, no sampling, padding masked.

    Attributes:
        roles: `both` when score(image, caption) has one value; `each` when it depends on who asks, and each
            direction is scored (and stored) for itself.
        options: Names of the settings of the group `teacher` that `load` takes as keyword arguments.
        version: Raised by the author whenever the same weights would give other scores; part of the fingerprint.
    """

    roles: ClassVar[Literal["both", "each"]] = "both"
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

    @property
    def preprocess(self) -> Callable[[Image.Image], Any]:
        """What makes an input of `encode_images` of one decoded RGB picture; by default the picture itself.

        It runs in the decoding processes, ahead of the device: it must be picklable, and should hold no weights.
        """
        return as_it_is

    @abstractmethod
    def encode_images(self, images: Sequence[Any]) -> list[Any]:
        """Everything of the teacher that depends on the image alone, one opaque value an image.

        Args:
            images: What `preprocess` made of each picture.
        """

    @abstractmethod
    def encode_texts(self, captions: Sequence[str]) -> list[Any]:
        """Everything of the teacher that depends on the caption alone (at least its token ids), one value a caption."""

    @abstractmethod
    def text_tokens(self, text: Any) -> int:
        """Number of tokens of one encoded caption before cutting."""

    def pair_tokens(self, text: Any) -> int:
        """Tokens that scoring one pair with this caption computes, for the budget of a call; the caption's own by default."""
        return min(self.text_tokens(text), self.max_text_tokens)

    @abstractmethod
    def score(self, image: Any, texts: Sequence[Any]) -> Float[Tensor, " N"]:
        """Raw matching logits of one encoded image with N encoded captions.

        Returns:
            float32 on the CPU, higher is better, no sigmoid.
        """

    def score_groups(self, groups: Sequence[Group]) -> Float[Tensor, " N"]:
        """Scores of several images, each with captions of its own, one group after the other.

        Override it where one pass over several images is faster than one each, as when images have few captions.

        Returns:
            As `score`; N captions of all groups.
        """
        return torch.cat([self.score(image, texts) for image, texts in groups])

    def facing(self, direction: Literal["i2t", "t2i"]) -> "CrossEncoder":
        """The teacher for one direction; only called, and only to be overridden, where `roles` is `each`.

        Args:
            direction: `i2t` when images ask for captions, `t2i` when captions ask for images.
        """
        return self
