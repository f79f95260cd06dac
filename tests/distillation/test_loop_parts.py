"""Schedule, checkpoints and augmentation."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessorPil

from cprd_pipeline.distillation.augment import Augmenter, pixel_divisor
from cprd_pipeline.distillation.checkpoints import Checkpoints
from cprd_pipeline.distillation.loop_settings import Augmentation
from cprd_pipeline.distillation.schedule import learning_rate
from cprd_pipeline.errors import MachineError, StoreError

STD = (0.5, 0.5, 0.5)
ALL = Augmentation(shift_pixels=2, noise=10, channel_gain=0.15, brightness=0.1, word_dropout=0.3)


def test_learning_rate_rises_to_the_peak_and_ends_at_two_percent() -> None:
    """Known points: first step, end of the warm-up, middle, end."""
    rates = [learning_rate(step, 1000, 100, 1.0) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01, rel=1e-3)
    assert max(rates) == pytest.approx(rates[99], rel=1e-3)
    assert rates[500] == pytest.approx(0.51)
    assert rates[1000] == pytest.approx(0.02)
    assert learning_rate(0, 10, 0, 1.0) == 1.0


@pytest.mark.parametrize(("warmup", "highest"), [(0, 1.0), (100, 0.996), (1200, 0.531)])
def test_the_cosine_falls_during_the_warmup_too(warmup: int, highest: float) -> None:
    """So the highest rate of 2,400 steps is as the documentation says, and afterwards that of a training without warm-up."""
    rates, plain = ([learning_rate(step, 2400, length, 1.0) for step in range(2400)] for length in (warmup, 0))
    assert max(rates) == pytest.approx(highest, abs=5e-4)
    assert rates[warmup:] == plain[warmup:]


def test_checkpoints_keep_the_newest(tmp_path: Path) -> None:
    """Two stay; the newest comes back with its tensors and numbers."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    for step in (5, 10, 15):
        checkpoints.save(step, {"w": torch.full((2,), float(step)), "log": [{"step": step}]})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000010.pt", "step-000000015.pt"]
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 15
    assert found[1]["w"].tolist() == [15.0, 15.0]
    assert found[1]["log"] == [{"step": 15}]


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    """The message says which file to delete."""
    (tmp_path / "step-000000010.pt").write_bytes(b"broken")
    with pytest.raises(StoreError, match=r"step-000000010\.pt: not a checkpoint.*delete that file"):
        Checkpoints(tmp_path).latest()


@pytest.mark.parametrize(
    ("free", "message"), [(0, "the disk is full; free some space"), (1 << 40, r"torch cannot write it \(\[enforce fail")]
)
def test_a_checkpoint_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, message: str
) -> None:
    """Torch's writer raises no OSError; the checkpoint before is still there."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, {"w": torch.ones(2)})

    def fail(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0\nmore")

    monkeypatch.setattr(torch, "save", fail)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))
    with pytest.raises(MachineError, match=message) as caught:
        checkpoints.save(10, {"w": torch.ones(2)})
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000005.pt"]


def augmenter(settings: Augmentation, seed: int = 0) -> Augmenter:
    return Augmenter(settings, STD, seed, torch.device("cpu"))


def augmented(by: Augmenter, pixels: torch.Tensor, step: int) -> torch.Tensor:
    return by.pictures(step, len(pixels), pixels.shape[1:]).of(pixels, 0)


@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_a_picture_is_changed_alike_in_any_part(size: int) -> None:
    """Of the step's pictures, as micro-batches and processes have them."""
    pixels = torch.randn(7, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    changes = augmenter(ALL).pictures(3, 7, pixels.shape[1:])
    parts = [changes.of(pixels[start : start + size], start) for start in range(0, 7, size)]
    assert torch.equal(torch.cat(parts), changes.of(pixels, 0))


def test_augmentation_repeats_for_a_step_and_differs_between_steps() -> None:
    """A resumed run sees what an uninterrupted one saw, whatever was drawn in between."""
    pixels = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    fresh, used = augmenter(ALL, 1), augmenter(ALL, 1)
    augmented(used, pixels, 0)
    torch.rand(5)
    assert torch.equal(augmented(fresh, pixels, 7), augmented(used, pixels, 7))
    assert not torch.equal(augmented(fresh, pixels, 7), augmented(fresh, pixels, 8))
    captions = ["one two three four five six"] * 5
    assert fresh.captions(captions, 7) == used.captions(captions, 7) != captions


def test_no_augmentation_changes_nothing() -> None:
    """All shares 0: the same tensors and texts."""
    pixels = torch.randn(2, 3, 8, 8)
    nothing = augmenter(Augmentation())
    assert torch.equal(augmented(nothing, pixels, 3), pixels)
    assert nothing.captions(["a b"], 3) == ["a b"]


@pytest.mark.parametrize("change", [{"shift_pixels": 2}, {"channel_gain": 0.1}, {"brightness": 0.1}, {"noise": 10}])
def test_the_callers_pictures_stay_as_they_are(change: dict[str, float]) -> None:
    """The same batch is augmented again where a second encoder sees it, and the loop keeps pictures for the next epoch."""
    pixels = torch.rand(5, 3, 12, 12)
    before = pixels.clone()
    changed = augmented(augmenter(Augmentation.model_validate(change)), pixels, 1)
    assert torch.equal(pixels, before)
    assert not torch.equal(changed, before)


def test_a_shift_moves_whole_pictures_and_repeats_the_border() -> None:
    """Every shifted picture is a window of the padded one; all offsets occur."""
    ramp = torch.arange(64.0).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    padded = torch.nn.functional.pad(ramp, (1, 1, 1, 1), mode="replicate")
    windows = {(y, x): padded[0, :, y : y + 8, x : x + 8] for y in range(3) for x in range(3)}
    shifts, seen = augmenter(Augmentation(shift_pixels=1)), set()
    for step in range(100):
        shifted = augmented(shifts, ramp, step)[0]
        seen |= {offset for offset, window in windows.items() if torch.equal(shifted, window)}
    assert seen == set(windows)


def test_noise_has_the_stated_spread() -> None:
    """10 of 255 is 10/127.5 once the processor has divided by a deviation of 0.5."""
    noisy = augmented(augmenter(Augmentation(noise=10)), torch.zeros(64, 3, 16, 16), 0)
    assert float(noisy.std()) == pytest.approx(10 / 127.5, rel=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_normalize": False},
        {"do_normalize": False, "image_std": None},
        {"image_mean": 0.5, "image_std": 0.25},
        {"do_rescale": False},
        {"do_rescale": None, "rescale_factor": None, "do_normalize": None},
        {"rescale_factor": 2 / 255},
    ],
    ids=str,
)
def test_brightness_is_a_share_of_half_the_range_whatever_the_processor_does(options: dict[str, Any]) -> None:
    """Of 1.0 it comes up to half of the way from a black picture to a white one, in the units in which a student sees them."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}, **options)
    black, white = (
        torch.from_numpy(processor([Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8))])["pixel_values"][0]).float()
        for value in (0, 255)
    )
    brighter = Augmenter(Augmentation(brightness=1.0), pixel_divisor(processor), 0, torch.device("cpu"))
    shares = (augmented(brighter, black.expand(64, -1, -1, -1), 0) - black) / (white - black)
    assert 0.48 < float(shares.abs().max()) <= 0.5 + 1e-5
    torch.testing.assert_close(shares, shares[:, :1, :1, :1].expand_as(shares))


@given(words=st.lists(st.sampled_from(["red", "circle", "left", "of"]), min_size=1, max_size=9), step=st.integers(0, 99))
def test_word_dropout_keeps_order_and_at_least_one_word(words: list[str], step: int) -> None:
    """What is left is a subsequence, never empty."""
    (left,) = augmenter(Augmentation(word_dropout=0.9)).captions([" ".join(words)], step)
    remaining = iter(words)
    assert left
    assert all(word in remaining for word in left.split())
