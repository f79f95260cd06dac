"""What differs between the teachers that `train-teacher` trains, and what their losses have in common.

Shape suffixes: B pairs of the batch, K negatives of one query, N pairs that the matching head sees.
"""

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cprd_pipeline.distillation.batches import BatchRows, PositivePairs
from cprd_pipeline.distillation.losses.matching import listwise_loss, matching_loss, sample_negatives
from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings
from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.preprocessing import Pixels

_NEGATIVES = 32

Losses = dict[str, Float[Tensor, ""]]
"""Scalars for the log by name: `total`, which is trained, its parts, among them `matching`, and what else is worth watching.

They are read before the update, which may change one in place.
"""


class Recipe(ABC):
    """A teacher with its losses; the loop around it is the same for all.

    Attributes:
        module: Everything that is trained; its state is all that a checkpoint keeps of the teacher.
        lengths: Tokens of each caption of the corpus, cut as the teacher cuts them; int64 [C].
    """

    module: nn.Module
    lengths: npt.NDArray[np.int64]

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """What AdamW trains, with a `weight_decay` each."""

    @property
    @abstractmethod
    def preprocess(self) -> Pixels:
        """What makes pixel values of one RGB picture."""

    @abstractmethod
    def losses(self, step: int, rows: BatchRows, pixels_BCHW: Float[Tensor, "B C H W"]) -> Losses:
        """The losses of one batch, with gradients; a function of the weights, the step and the batch.

        Raises:
            ModelError: A similarity is not finite.
        """

    def bound(self) -> None:  # noqa: B027
        """Bring weights back into their bounds after an update; none have any by default."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write model, tokenizer and image processor the way transformers reads them."""

    @abstractmethod
    def card(self, corpus: str) -> str:
        """Markdown of the model card, for the digest of the corpus."""


class MatchedPairs(NamedTuple):
    """Pairs of a batch that the matching head sees: each own pair, K captions for each image, K images for each caption.

    Args:
        captions: Place in the batch of each pair's caption, int64 [N = B + 2 B K].
        images: Place in the batch of each pair's image, int64 [N].
        excluded: Drawn pairs that are no negatives, captions for images first; bool [2 B K].
    """

    captions: Int[Tensor, " N"]
    images: Int[Tensor, " N"]
    excluded: Bool[Tensor, "2 B K"]

    def matching(self, logits: Float[Tensor, " N"]) -> Float[Tensor, ""]:
        """Whether each pair belongs together, by `matching_loss`."""
        positive_B, negatives = self._sides(logits)
        return matching_loss(positive_B, negatives.transpose(0, 1).flatten(1), self.excluded.transpose(0, 1).flatten(1))

    def listwise(self, logits: Float[Tensor, " N"]) -> Float[Tensor, ""]:
        """Which of a query's pairs is its own, by `listwise_loss`: both directions as one list of 2 B queries."""
        positive_B, negatives = self._sides(logits)
        return listwise_loss(positive_B.repeat(2), negatives.flatten(0, 1), self.excluded.flatten(0, 1))

    def _sides(self, logits: Float[Tensor, " N"]) -> tuple[Float[Tensor, " B"], Float[Tensor, "2 B K"]]:
        size = self.excluded.shape[1]
        return logits[:size], logits[size:].view(self.excluded.shape)


def draw_pairs(
    settings: TrainTeacherSettings, step: int, likeness_BB: Float[Tensor, "B B"], excluded_BB: Bool[Tensor, "B B"]
) -> MatchedPairs:
    """Captions that each image might be taken for, and images that each caption might; the same for the same step.

    Args:
        settings: How many, and how hard.
        step: Number of finished steps.
        likeness_BB: Logits of images (rows) and captions without gradients; higher for what looks more alike.
        excluded_BB: Annotated pairs, the own ones among them.

    Raises:
        ModelError: The likeness is not finite.
    """
    check_finite(float(likeness_BB.mean()), step)
    seed = int(np.random.SeedSequence([settings.seed, _NEGATIVES, step]).generate_state(1)[0])
    draw = (settings.negatives, settings.hard_share, torch.Generator().manual_seed(seed))
    captions_BK = sample_negatives(likeness_BB, excluded_BB, *draw)
    images_BK = sample_negatives(likeness_BB.T, excluded_BB.T, *draw)
    own_B = torch.arange(len(likeness_BB), device=likeness_BB.device)
    own_of_drawn = own_B.repeat_interleave(settings.negatives)
    return MatchedPairs(
        captions=torch.cat([own_B, captions_BK.flatten(), own_of_drawn]),
        images=torch.cat([own_B, own_of_drawn, images_BK.flatten()]),
        excluded=torch.stack([excluded_BB.gather(1, captions_BK), excluded_BB.T.gather(1, images_BK)]),
    )


def annotated(positives: PositivePairs, rows: BatchRows, device: torch.device) -> Bool[Tensor, "B B"]:
    """Pairs of a batch that are no negatives: positives are closed over equal pictures and equal texts."""
    # Row by row in memory: the negatives are drawn in the order in which their weights lie there.
    return torch.from_numpy(np.ascontiguousarray(positives.among(rows))).to(device)


def check_finite(value: float, step: int) -> None:
    """Stop a training that has left the numbers.

    Raises:
        ModelError: The value is NaN or infinite.
    """
    if not math.isfinite(value):
        raise ModelError(
            f"the teacher's training has come to {value} at step {step}",
            expected="finite logits and losses",
            do="lower learning_rate or clip_norm; the last checkpoint is kept",
        )
