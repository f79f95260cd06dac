"""Encoding in micro-batches: the loss of the whole batch, its exact gradients, and a bounded graph."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from cprd_pipeline.distillation.augment import PictureChanges
from cprd_pipeline.distillation.processes import Processes
from cprd_pipeline.distillation.towers import Towers
from cprd_pipeline.models.dual_encoder import DualEncoder
from tests.tiny_encoders import tiny_clip, tiny_siglip

UNCHANGED = PictureChanges(0, None, None, None, None, torch.zeros(0, dtype=torch.int64))
TEXTS = ["a b c", "d", "e f g h", "b c", "x y", "z z z"]


def student_of(folder: Path, dtype: torch.dtype = torch.float64) -> DualEncoder:
    found = DualEncoder.load(str(folder), torch.device("cpu"), torch.float32)
    found.model.to(torch.float64 if dtype == torch.float64 else torch.float32)
    found.dtype = dtype
    return found


def pixels(student: DualEncoder) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (len(TEXTS), 40, 40, 3), generator=generator, dtype=torch.uint8)
    return student.pixels([Image.fromarray(picture.numpy()) for picture in pictures])


def gradients(student: DualEncoder, micro_batch: int | None) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of a contrastive loss through `Towers`."""
    student.model.zero_grad()
    towers = Towers(student, micro_batch, Processes(), 0, compiled=False)
    pieces = {"images": towers.images(3, pixels(student), 0, UNCHANGED), "captions": towers.captions(3, TEXTS, 0)}
    leaves = {side: towers.gather(found, len(TEXTS)) for side, found in pieces.items()}
    loss = torch.nn.functional.cross_entropy(leaves["images"] @ leaves["captions"].T * 10, torch.arange(len(TEXTS)))
    loss.backward()
    for side in ("images", "captions"):
        towers.backward(side, 3, pieces[side], leaves[side].grad)  # type: ignore[arg-type]
    found = {name: weight.grad.clone() for name, weight in student.model.named_parameters() if weight.grad is not None}
    return float(loss.detach()), found


@pytest.mark.parametrize("family", [tiny_clip, tiny_siglip])
@pytest.mark.parametrize("micro_batch", [None, 1, 4, 6])
def test_gradients_are_those_of_one_plain_backward_pass(tmp_path: Path, family: object, micro_batch: int | None) -> None:
    """In float64, whatever the size of the pieces."""
    student = student_of(family(tmp_path / "student"))  # type: ignore[operator]
    found_loss, found = gradients(student, micro_batch)
    student.model.zero_grad()
    images, captions = student.embed_images(pixels(student)), student.embed_captions(TEXTS)
    loss = torch.nn.functional.cross_entropy(images @ captions.T * 10, torch.arange(len(TEXTS)))
    loss.backward()
    expected = {name: weight.grad for name, weight in student.model.named_parameters() if weight.grad is not None}
    assert found_loss == pytest.approx(float(loss.detach()), abs=1e-12)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_a_piece_that_is_encoded_again_draws_the_same_dropout(tmp_path: Path) -> None:
    """The gradients of pieces with dropout are those of the features that the loss saw: a second call gives the same ones."""
    student = student_of(tiny_clip(tmp_path / "clip"))
    student.model.train()
    for layer in student.model.modules():
        if hasattr(layer, "dropout") and isinstance(layer.dropout, float):
            layer.dropout = 0.4
    torch.rand(3)
    first = gradients(student, 2)
    torch.rand(5)
    second = gradients(student, 2)
    student.model.eval()
    assert first[0] == second[0] != gradients(student, 2)[0]
    assert all(torch.equal(second[1][name], gradient) for name, gradient in first[1].items())


def test_pieces_that_are_encoded_again_keep_no_graph(tmp_path: Path) -> None:
    """Memory of a step follows the micro-batch: only a single piece has its graph from the start."""
    student = student_of(tiny_clip(tmp_path / "clip"))
    cut = Towers(student, 4, Processes(), 0, compiled=False).images(0, pixels(student), 0, UNCHANGED)
    whole = Towers(student, 6, Processes(), 0, compiled=False).images(0, pixels(student), 0, UNCHANGED)
    assert [(piece.start, len(piece.features)) for piece in cut] == [(0, 4), (4, 2)]
    assert not any(piece.features.requires_grad for piece in cut)
    assert whole[0].features.requires_grad
    assert whole[0].inputs is None


def test_a_frozen_tower_gets_no_gradient(tmp_path: Path) -> None:
    """And costs no backward pass."""
    student = student_of(tiny_clip(tmp_path / "clip"))
    for weight in student.model.vision_model.parameters():
        weight.requires_grad_(False)
    student.model.visual_projection.requires_grad_(False)
    for micro_batch in (None, 2):
        _, found = gradients(student, micro_batch)
        assert found
        assert all(name.startswith("text_") for name in found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_loss_is_given_at_least_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    """Features of a lower precision are raised before the loss, and close to the exact ones."""
    student = student_of(tiny_clip(tmp_path / "clip"), dtype)
    towers = Towers(student, None, Processes(), 0, compiled=False)
    leaf = towers.gather(towers.captions(0, TEXTS, 0), len(TEXTS))
    assert leaf.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = student_of(tmp_path / "clip").embed_captions(TEXTS)
    torch.testing.assert_close(leaf.double(), exact, rtol=0, atol=2e-2 if dtype == torch.bfloat16 else 1e-5)
