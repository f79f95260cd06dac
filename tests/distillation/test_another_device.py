"""A step where the student is not on the CPU: no tensor of the CPU meets one of the device, and the losses are those of the CPU."""

import copy
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation import learner as learner_module
from cprd_pipeline.distillation import towers
from cprd_pipeline.distillation.batches import PositivePairs
from cprd_pipeline.distillation.learner import Learner, Stepped
from cprd_pipeline.distillation.meeting import CandidateDraw, Meetings
from cprd_pipeline.distillation.processes import Processes
from cprd_pipeline.distillation.sampling import PairSampler
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.models.dual_encoder import DualEncoder
from tests.another_device import ELSEWHERE, Away, MixedDevicesError, another_device, move_away
from tests.distillation.made_knowledge import clustered
from tests.tiny_encoders import simple_corpus, tiny_clip

IMAGES, STEPS = 16, 3
WAYS: list[dict[str, Any]] = [
    *({"objective": name} for name in ("itc", "cprd", "kl", "margin_mse", "listnet", "listmle", "ranknet")),
    {"objective": "itc", "contrastive": "sigmoid"},
    {"objective": "kl", "kl": {"standardise": True}},
    {"shuffle_teacher": True},
    {"items": "encode"},
    {"items": "bank", "cprd": {"easy_negatives": "bank"}},
    {"items": "bank", "bank": {"features": "momentum"}},
    {"micro_batch": 3},
    {"cosine_steps": 1},
    {"clip_norm": 1.0},
    {"freeze": ["vision"]},
    {"augmentation": {"shift_pixels": 2, "channel_gain": 0.1, "brightness": 0.1, "noise": 5, "word_dropout": 0.1}},
]


def steps_of(folder: Path, values: dict[str, Any], student: DualEncoder) -> list[Stepped]:
    """Some steps with random pictures, and knowledge about pairs of a cluster."""
    told, split = clustered(IMAGES, 4)
    rankings = () if values.get("objective") == "itc" else ("rankings",)
    settings = DistillSettings.model_validate(
        {"rankings": rankings, "batch_size": 8, "warmup_steps": 0, "distillation_from_step": 0, "ema": 0.9, **values}
    )
    positives, knows = PositivePairs(split, 2 * IMAGES), told if rankings else None
    draw = CandidateDraw(settings.encode, told, positives, 0) if settings.items == "encode" else None
    meetings = Meetings(PairSampler(split, settings.batch_size, 0), draw)
    corpus = Corpus(simple_corpus(folder / "corpus", IMAGES))
    pictures = torch.from_numpy(np.random.default_rng(0).standard_normal((IMAGES, 3, 32, 32), dtype=np.float32))
    learner = Learner(settings, student, corpus, knows, positives, Processes(), folder / "bank")
    learner.train()
    found = []
    for step in range(STEPS):
        meeting = meetings.at(step)
        found.append(learner.step(step, meeting, pictures[torch.from_numpy(meeting.encoded_images.rows)]))
    return found


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """What knows real devices alone: autocast, which float32 does not use, the fused optimizer, deep copies, one `foreach`."""
    adam = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, **kept: adam(groups, **kept | {"fused": False, "foreach": False}))
    monkeypatch.setattr(towers, "training_precision", lambda _: nullcontext())
    monkeypatch.setattr(learner_module, "copy", SimpleNamespace(deepcopy=_copied, copy=copy.copy))
    monkeypatch.setattr(torch, "_foreach_lerp_", _lerp)


def _copied(model: nn.Module) -> nn.Module:
    away: dict[int, Any] = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            held = weight.detach()
            assert isinstance(held, Away)
            away[id(weight)] = nn.Parameter(Away(held.inner.clone()), requires_grad=weight.requires_grad)
        for buffer in module.buffers(recurse=False):
            assert isinstance(buffer, Away)
            away[id(buffer)] = Away(buffer.inner.clone())
    return copy.deepcopy(model, away)


def _lerp(kept: list[torch.Tensor], now: list[torch.Tensor], share: float) -> None:
    for one, other in zip(kept, now, strict=True):
        one.copy_(one.lerp(other.detach(), share))


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_no_step_mixes_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]) -> None:
    """Every objective and every way of training; all that the log says is what it says of a run on the CPU."""
    folder, cpu = tiny_clip(tmp_path / "student"), torch.device("cpu")
    wanted = steps_of(tmp_path / "here", way, DualEncoder.load(str(folder), cpu, torch.float32))
    student = DualEncoder.load(str(folder), cpu, torch.float32)
    pretend(monkeypatch)
    with another_device():
        move_away(student.model)
        student.device = ELSEWHERE
        found = steps_of(tmp_path / "there", way, student)
    for one, other in zip(found, wanted, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-4, abs=1e-5)
        assert one.scale == pytest.approx(other.scale, rel=1e-5)
        assert one.extra == pytest.approx(other.extra, rel=1e-3, abs=1e-3)


def test_a_tensor_of_the_wrong_device_is_found() -> None:
    """As a GPU would: in sums, as what is indexed; not as an index, nor as a number."""
    with another_device():
        there, here = torch.ones(3, device=ELSEWHERE), torch.ones(3)
        rows = torch.tensor([0, 2])
        assert there[rows].sum().item() == 2
        assert (there * torch.tensor(2.0)).tolist() == [2, 2, 2]
        assert (there.to("cpu") + here).tolist() == [2, 2, 2]
        with pytest.raises(MixedDevicesError, match="add"):
            there + here
        with pytest.raises(MixedDevicesError, match="indexed"):
            here[rows.to(ELSEWHERE)]
