"""A bank keeps the newest features of each content, in float16, in memory or in a file, and over an interruption."""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cprd_pipeline.distillation.bank import FeatureBank
from cprd_pipeline.errors import MachineError

COUNT, WIDTH = 9, 4
IN_MEMORY, IN_FILE = COUNT * WIDTH * 2, COUNT * WIDTH * 2 - 1
PUTS = st.lists(st.lists(st.integers(0, COUNT - 1), max_size=6), min_size=1, max_size=5)


@dataclass
class PlainBank:
    """What a bank does, with a dictionary."""

    kept: dict[int, tuple[list[float], int]] = field(default_factory=dict)

    def put(self, rows: list[int], features: torch.Tensor, step: int) -> None:
        for row, vector in zip(rows, features.half().tolist(), strict=True):
            self.kept[row] = (vector, step)

    def agrees(self, bank: FeatureBank) -> bool:
        rows = np.array(sorted(self.kept), dtype=np.int64)
        held = np.flatnonzero(bank.held()).tolist() == rows.tolist()
        ages = all(bank.age(np.array([row]), 100) == 100 - step for row, (_, step) in self.kept.items())
        return held and ages and bank.take(rows).tolist() == [self.kept[int(row)][0] for row in rows]


def features_of(seed: int, count: int) -> torch.Tensor:
    """Vectors of length one, which float16 rounds."""
    vectors = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


def filled(bank: FeatureBank, puts: list[list[int]]) -> PlainBank:
    """Features of one step after the other, into the bank and a dictionary."""
    plain = PlainBank()
    for step, rows in enumerate(puts):
        features = features_of(step, len(rows))
        bank.put(np.array(rows, dtype=np.int64), features, step)
        plain.put(rows, features, step)
    return plain


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(puts=PUTS, memory=st.sampled_from([IN_MEMORY, IN_FILE]))
def test_a_bank_is_a_dictionary_of_the_newest_features(tmp_path: Path, puts: list[list[int]], memory: int) -> None:
    """Rows, features rounded to float16, and ages; of contents repeated in a step the last stays."""
    bank = FeatureBank(COUNT, tmp_path / "bank" / "images", memory)
    assert filled(bank, puts).agrees(bank)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=PUTS, later=PUTS, memory=st.sampled_from([IN_MEMORY, IN_FILE]), fresh=st.booleans())
def test_what_a_checkpoint_keeps_is_what_was_there(
    tmp_path: Path, before: list[list[int]], later: list[list[int]], memory: int, fresh: bool
) -> None:
    """Loaded into a fresh bank, or into the same one after further steps."""
    bank = FeatureBank(COUNT, tmp_path / "images", memory)
    plain = filled(bank, before)
    state = {name: tensor.clone() for name, tensor in bank.state().items()}
    filled(bank, later)
    loaded = FeatureBank(COUNT, tmp_path / "other", memory) if fresh else bank
    loaded.load(state)
    assert plain.agrees(loaded)
    assert {name: tensor.tolist() for name, tensor in loaded.state().items()} == {n: t.tolist() for n, t in state.items()}


def test_a_bank_above_its_memory_lies_in_a_file(tmp_path: Path) -> None:
    """One byte decides; the file holds the features as a plain array."""
    features, rows = features_of(0, 3), np.array([4, 0, 7])
    for name, memory in (("in", IN_MEMORY), ("out", IN_FILE)):
        FeatureBank(COUNT, tmp_path / "deep" / name, memory).put(rows, features, 0)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    stored = np.fromfile(tmp_path / "deep" / "out", dtype=np.float16).reshape(COUNT, WIDTH)
    np.testing.assert_array_equal(stored[rows], features.half().numpy())


def test_a_bank_that_the_disk_has_no_room_for_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is taken at once: a page that cannot be written would end the process without a word."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MachineError, match=r"images: the disk is full; free some space"):
        FeatureBank(COUNT, tmp_path / "images", IN_FILE).put(np.arange(COUNT), features_of(0, COUNT), 0)


def test_the_state_of_a_bank_in_a_file_takes_no_memory(tmp_path: Path) -> None:
    """It is the mapped file itself, which a checkpoint writes from where it lies."""
    bank = FeatureBank(COUNT, tmp_path / "images", IN_FILE)
    bank.put(np.array([1]), features_of(0, 1), 0)
    first, again = bank.state()["features"], bank.state()["features"]
    assert first.data_ptr() == again.data_ptr()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "images", dtype=np.float16), first.numpy().ravel())


def test_an_interrupted_run_holds_nothing_of_its_file(tmp_path: Path) -> None:
    """A killed run leaves features of later steps behind; only the checkpoint says what there is."""
    FeatureBank(COUNT, tmp_path / "images", IN_FILE).put(np.arange(COUNT), features_of(0, COUNT), 0)
    again = FeatureBank(COUNT, tmp_path / "images", IN_FILE)
    assert not again.held().any()
    again.put(np.array([2]), features_of(1, 1), 5)
    assert np.flatnonzero(again.held()).tolist() == [2]
    torch.testing.assert_close(again.take(np.array([2])), features_of(1, 1).half(), rtol=0, atol=0)


def test_processes_share_the_file(tmp_path: Path) -> None:
    """One that begins later does not empty what another has mapped: that would be a crash, or features of zeros."""
    first, second = (FeatureBank(COUNT, tmp_path / "images", IN_FILE) for _ in range(2))
    first.put(np.arange(3), features_of(0, 3), 0)
    second.put(np.array([7]), features_of(1, 1), 0)
    torch.testing.assert_close(first.take(np.arange(3)), features_of(0, 3).half(), rtol=0, atol=0)


def test_an_empty_bank_has_nothing_and_says_so(tmp_path: Path) -> None:
    """No width, no features, no age; its state can be kept and loaded, also into one that was filled meanwhile."""
    bank = FeatureBank(COUNT, tmp_path / "images", IN_MEMORY)
    nothing = np.empty(0, dtype=np.int64)
    assert (bank.width, bank.held().sum(), bank.age(nothing, 3), len(bank.take(nothing))) == (0, 0, 0.0, 0)
    state = {name: tensor.clone() for name, tensor in bank.state().items()}
    filled(bank, [[1, 2]])
    bank.load(state)
    assert not bank.held().any()
    assert bank.take(nothing).shape == (0, WIDTH)
    assert set(FeatureBank(COUNT, tmp_path / "images", IN_MEMORY).state()) == {"steps"}


def test_age_is_the_mean_over_what_is_asked(tmp_path: Path) -> None:
    """Two rows of steps 0 and 1, one of them asked for twice."""
    bank = FeatureBank(COUNT, tmp_path / "images", IN_MEMORY)
    filled(bank, [[1], [2]])
    assert bank.age(np.array([1, 2, 2]), 10) == pytest.approx((10 + 9 + 9) / 3)


def test_features_carry_no_gradient_and_come_in_any_number_type(tmp_path: Path) -> None:
    """Those of a step with gradients in float64, and of bfloat16."""
    bank = FeatureBank(COUNT, tmp_path / "images", IN_MEMORY)
    for dtype in (torch.float64, torch.bfloat16):
        features = features_of(0, 2).to(dtype).requires_grad_()
        bank.put(np.array([3, 5]), features, 0)
        taken = bank.take(np.array([5, 3]))
        assert (taken.dtype, taken.requires_grad) == (torch.float16, False)
        torch.testing.assert_close(taken, features.detach().half().flip(0), rtol=0, atol=0)


def test_the_held_mask_is_the_callers_own(tmp_path: Path) -> None:
    """Changing it does not change the bank."""
    bank = FeatureBank(COUNT, tmp_path / "images", IN_MEMORY)
    filled(bank, [[1]])
    bank.held()[:] = False
    assert bank.held()[1]
