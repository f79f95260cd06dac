"""Encoding with gradients in bounded memory: features first, the loss over all of them, then back through the towers.

With micro-batches each piece is encoded twice: without gradients for the loss, and again, piece by piece, with the
gradients of its features. So the contrastive loss is that of the whole batch, which adding up losses of small batches is not.

Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv:2101.06983.

Shape suffixes: M images, N captions, D width of the common space, C H W of a picture, T tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.distillation.augment import PictureChanges
from cprd_pipeline.distillation.precision import training_precision
from cprd_pipeline.distillation.processes import Processes
from cprd_pipeline.models.dual_encoder import DualEncoder

_STEP_SEED = 21
_SIDES = {"images": 0, "captions": 1}
Side = Literal["images", "captions"]


@dataclass
class Piece:
    """Some items that are encoded together.

    Args:
        start: Number of its first item in the whole batch.
        features: With their graph, unless the piece is to be encoded again.
        inputs: Of the tower, made once more for encoding it again; None where that is not needed.
    """

    start: int
    features: Float[Tensor, "n D"]
    inputs: "Inputs | None"


Inputs = Callable[[], tuple[Tensor, ...]]
"""Brings what a tower is given to its device."""


class Towers:
    """The student's two towers during training.

    Args:
        student: The student; its weights are read at every call.
        micro_batch: Largest number of items encoded at once; None encodes this process' slice as one.
        processes: Who takes part.
        seed: Of dropout and everything else that a forward pass draws.
        compiled: Pass the towers through `torch.compile`.
    """

    def __init__(self, student: DualEncoder, micro_batch: int | None, processes: Processes, seed: int, *, compiled: bool) -> None:
        self._student = student
        self._micro_batch = micro_batch
        self._processes = processes
        self._seed = seed
        self._encode: dict[Side, Callable[..., Tensor]] = {"images": student.embed_images, "captions": student.embed_texts}
        if compiled:
            # Captions of a batch are as long as its longest: without `dynamic` every length would be compiled.
            self._encode["images"] = torch.compile(student.embed_images)
            self._encode["captions"] = torch.compile(student.embed_texts, dynamic=True)

    def images(self, step: int, pixels_MCHW: Float[Tensor, "n C H W"], start: int, changes: PictureChanges) -> list[Piece]:
        """Encode this process' pictures.

        Args:
            step: Steps done.
            pixels_MCHW: Processed pictures.
            start: Number of the first one in the whole batch.
            changes: Of the whole batch's pictures.
        """
        size = self._micro_batch or len(pixels_MCHW)
        parts = []
        for at in range(0, len(pixels_MCHW), size):
            parts.append((start + at, partial(self._pictures, pixels_MCHW[at : at + size], start + at, changes)))
        return self._pieces("images", step, parts)

    def captions(self, step: int, texts: Sequence[str], start: int) -> list[Piece]:
        """Encode this process' captions; arguments as of `images`."""
        size = self._micro_batch or len(texts)
        parts = []
        for at in range(0, len(texts), size):
            tokens = self._student.tokens(texts[at : at + size])
            parts.append((start + at, partial(self._on_device, tokens["input_ids"], tokens["attention_mask"])))
        return self._pieces("captions", step, parts)

    def _pictures(self, pixels_MCHW: Tensor, start: int, changes: PictureChanges) -> tuple[Tensor]:
        (moved,) = self._on_device(pixels_MCHW)
        return (changes.of(moved, start),)

    def _on_device(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.to(self._student.device, non_blocking=True) for tensor in tensors)

    def gather(self, pieces: Sequence[Piece], count: int) -> Float[Tensor, "N D"]:
        """Features of all processes as a leaf that collects gradients.

        Args:
            pieces: Of this process.
            count: Items of all processes.
        """
        features_ND = self._processes.gather(torch.cat([piece.features.detach() for piece in pieces]), count)
        lower = features_ND.dtype in (torch.bfloat16, torch.float16)
        return (features_ND.float() if lower else features_ND.clone()).requires_grad_()

    def backward(self, side: Side, step: int, pieces: Sequence[Piece], gradients_ND: Tensor, *, keep_graph: bool = False) -> None:
        """Add this process' share of the weights' gradients to their `.grad`.

        Args:
            side: Which tower.
            step: Steps done.
            pieces: What it made of this step's items.
            gradients_ND: Of the features of all processes.
            keep_graph: Another backward pass of the same pieces follows.
        """
        for piece in pieces:
            features = piece.features if piece.inputs is None else self._run(side, step, piece.start, piece.inputs)
            if features.requires_grad:  # A frozen tower has nothing to learn.
                gradient = gradients_ND[piece.start : piece.start + len(features)]
                torch.autograd.backward(features, gradient.to(features.dtype), retain_graph=keep_graph)

    def _pieces(self, side: Side, step: int, parts: Sequence[tuple[int, Inputs]]) -> list[Piece]:
        again = len(parts) > 1
        with torch.set_grad_enabled(not again):
            return [Piece(start, self._run(side, step, start, inputs), inputs if again else None) for start, inputs in parts]

    def _run(self, side: Side, step: int, start: int, inputs: Inputs) -> Tensor:
        # Named by step, side and first item, so that dropout repeats when a piece is encoded again or a run resumed, and
        # does not depend on how many processes there are.
        torch.manual_seed(_draw_seed(self._seed, step, side, start))
        made = inputs()
        with training_precision(self._student):
            return self._encode[side](*made)


def _draw_seed(seed: int, step: int, side: Side, start: int) -> int:
    return int(np.random.SeedSequence([seed, _STEP_SEED, step, _SIDES[side], start]).generate_state(1)[0])
