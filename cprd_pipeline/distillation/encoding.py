"""The items of a step on their way through the towers, each content once, and gradients of a loss on their way back.

Shape suffixes: M images, N captions of a step; U, V different contents of them, u of this process; D width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.distillation.augment import Augmenter
from cprd_pipeline.distillation.meeting import Meeting, Once
from cprd_pipeline.distillation.processes import Processes
from cprd_pipeline.distillation.towers import Piece, Towers


class Encoded(NamedTuple):
    """Features of a step, on all processes.

    Args:
        images_MD: Of every image of the step, vectors of length one.
        captions_ND: Of every caption.
        image_leaves_UD: What the images' features are taken from: those of their contents, which collect gradients.
        caption_leaves_VD: The same for captions.
        image_pieces: What this process made of its part.
        caption_pieces: The same for captions.
    """

    images_MD: Float[Tensor, "M D"]
    captions_ND: Float[Tensor, "N D"]
    image_leaves_UD: Float[Tensor, "U D"]
    caption_leaves_VD: Float[Tensor, "V D"]
    image_pieces: list[Piece]
    caption_pieces: list[Piece]


class StepEncoder:
    """Encodes steps.

    Args:
        texts: All captions of the corpus.
        augmenter: Changes pictures and captions before they are encoded.
        processes: Who takes part.
    """

    def __init__(self, texts: Sequence[str], augmenter: Augmenter, processes: Processes) -> None:
        self._texts = texts
        self._augmenter = augmenter
        self._processes = processes

    def encode(self, towers: Towers, step: int, meeting: Meeting, pixels_UCHW: Float[Tensor, "u C H W"]) -> Encoded:
        """Features of all items of a step.

        Args:
            towers: Who encodes.
            step: Steps done.
            meeting: What all processes encode.
            pixels_UCHW: Processed pictures of this process' part of `meeting.encoded_images`.
        """
        images, captions = meeting.encoded_images, meeting.encoded_captions
        counts = len(images.rows), len(captions.rows)
        own_images, own_captions = (self._processes.part(count) for count in counts)
        texts = self._augmenter.captions([self._texts[row] for row in captions.rows], step)[own_captions]
        changes = self._augmenter.pictures(step, counts[0], pixels_UCHW.shape[1:])
        image_pieces = towers.images(step, pixels_UCHW, own_images.start, changes)
        caption_pieces = towers.captions(step, texts, own_captions.start)
        images_UD, captions_VD = towers.gather(image_pieces, counts[0]), towers.gather(caption_pieces, counts[1])
        return Encoded(
            _of_items(images_UD, images), _of_items(captions_VD, captions), images_UD, captions_VD, image_pieces, caption_pieces
        )

    def backward(
        self,
        towers: Towers,
        step: int,
        encoded: Encoded,
        loss: Float[Tensor, ""],
        weights: Sequence[Tensor],
        *,
        keep_graph: bool = False,
    ) -> None:
        """Bring the gradients of the whole batch's loss into the `.grad` of weights, the same on every process.

        Args:
            towers: Who encoded.
            step: Steps done.
            encoded: What they made of it.
            loss: Computed from it, by every process alike.
            weights: All that are trained, the towers' and those that the loss itself has.
            keep_graph: Another backward pass of the same step follows.
        """
        leaves = encoded.image_leaves_UD, encoded.caption_leaves_VD
        for leaf in leaves:
            leaf.grad = None
        loss.backward(retain_graph=keep_graph)  # type: ignore[no-untyped-call]
        # Temperature and bias have theirs already, each process that of the whole loss.
        for weight in weights:
            if weight.grad is not None:
                weight.grad /= self._processes.size
        of_images, of_captions = (leaf.grad for leaf in leaves)
        assert of_images is not None
        assert of_captions is not None
        towers.backward("images", step, encoded.image_pieces, of_images, keep_graph=keep_graph)
        towers.backward("captions", step, encoded.caption_pieces, of_captions, keep_graph=keep_graph)
        self._processes.add([weight.grad for weight in weights if weight.grad is not None])


def _of_items(features_UD: Float[Tensor, "U D"], once: Once) -> Float[Tensor, "M D"]:
    """Features of all items of a step, from those of their contents."""
    return features_UD if once.places is None else features_UD[torch.from_numpy(once.places).to(features_UD.device)]
