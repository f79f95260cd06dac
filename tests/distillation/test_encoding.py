"""A step's items through the towers: each content once, every place its features, and the gradients of all places back."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cprd_pipeline.distillation.augment import Augmenter
from cprd_pipeline.distillation.batches import BatchRows
from cprd_pipeline.distillation.encoding import StepEncoder
from cprd_pipeline.distillation.loop_settings import Augmentation
from cprd_pipeline.distillation.meeting import Meeting
from cprd_pipeline.distillation.processes import Processes
from cprd_pipeline.distillation.towers import Towers
from tests.distillation.test_towers import TEXTS, pixels, student_of
from tests.tiny_encoders import tiny_clip

# Images 2 and caption 0 stand twice in the batch, caption row 3 has the content of row 1; image 5 was drawn.
IMAGES, CAPTIONS = [2, 0, 2, 1, 5], [0, 3, 1, 0]
ENCODED_IMAGES, ENCODED_CAPTIONS = [2, 0, 1, 5], [0, 3]
CAPTION_CONTENTS = [0, 1, 1, 0]


def meeting() -> Meeting:
    rows = BatchRows.of_pairs(np.array(IMAGES[:4]), np.array(CAPTIONS))
    return Meeting(rows, np.array(IMAGES), np.array(CAPTIONS), np.array(IMAGES), np.array(CAPTION_CONTENTS))


@pytest.mark.parametrize("micro_batch", [None, 1, 3])
def test_every_item_has_its_features_and_gives_back_its_gradients(tmp_path: Path, micro_batch: int | None) -> None:
    """Against the student's plain call on every item, repeated ones again, and PyTorch's own gradients of it, in float64."""
    student = student_of(tiny_clip(tmp_path / "student"))
    texts = [TEXTS[row] for row in (0, 1, 2, 1)]
    pictures, processes = pixels(student).double(), Processes()
    encoder = StepEncoder(texts, Augmenter(Augmentation(), student.image_processor.image_std, 0, student.device), processes)
    towers = Towers(student, micro_batch, processes, 0, compiled=False)
    encoded = encoder.encode(towers, 7, meeting(), pictures[ENCODED_IMAGES])
    assert [piece.start for piece in encoded.caption_pieces] == ([0, 1] if micro_batch == 1 else [0])
    assert len(encoded.image_leaves_UD) == len(ENCODED_IMAGES)
    assert len(encoded.caption_leaves_VD) == len(ENCODED_CAPTIONS)

    plain = student.embed_images(pictures[IMAGES]), student.embed_captions([texts[row] for row in CAPTIONS])
    found = encoded.images_MD, encoded.captions_ND
    shares = [torch.randn(one.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) for one in plain]
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    weights = [weight for weight in student.model.parameters() if weight.requires_grad]
    losses = [
        sum(((one * share).sum() for one, share in zip(both, shares, strict=True)), torch.zeros(())) for both in (found, plain)
    ]
    wanted = torch.autograd.grad(losses[1], weights, allow_unused=True)
    encoder.backward(towers, 7, encoded, losses[0], weights)
    for weight, gradient in zip(weights, wanted, strict=True):
        assert (weight.grad is None) == (gradient is None)
        if gradient is not None:
            torch.testing.assert_close(weight.grad, gradient, rtol=1e-9, atol=1e-11)
