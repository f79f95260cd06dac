"""Whole trainings under settings that change how, not what, is learned; each against the plain training."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from cprd_pipeline.distillation import meeting
from cprd_pipeline.distillation.batches import BatchRows
from cprd_pipeline.distillation.run import run
from cprd_pipeline.distillation.sampling import Sampler
from cprd_pipeline.distillation.towers import Piece, Towers
from cprd_pipeline.errors import ModelError
from tests.distillation.test_run import files, logged, project, settings  # noqa: F401  a fixture
from tests.tiny_encoders import tiny_clip

COMPILED = """
import json, sys
from cprd_pipeline.distillation.run import run
from cprd_pipeline.distillation.settings import DistillSettings
run(DistillSettings.model_validate(json.loads(sys.argv[1])))
"""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def trained(name: str, **changes: Any) -> dict[str, torch.Tensor]:
    """Weights of a student that is trained under some settings."""
    run(settings(output=f"data/students/{name}", **changes))
    return weights(Path("data/students") / name)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], within: float) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=within, msg=name)


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_micro_batches_change_rounding_alone(project: Path, micro_batch: int) -> None:  # noqa: F811
    """Gradient accumulation that is exact: the loss is that of the whole batch."""
    same = {"precision": "float64", "steps": 12, "cosine_steps": 4}
    assert_same(trained("pieces", **same, micro_batch=micro_batch), trained("whole", **same), 1e-9)


def test_gradient_checkpointing_changes_nothing(project: Path) -> None:  # noqa: F811
    """Activations are computed again: the same numbers."""
    same = {"student": str(tiny_clip(project / "clip")), "learning_rate": 1e-3, "precision": "float64"}
    assert_same(trained("again", **same, gradient_checkpointing=True), trained("kept", **same), 1e-12)


def test_compiled_towers_train_the_same_student(project: Path) -> None:  # noqa: F811
    """In a process without the run-time type checks, which the compiler cannot look through."""
    same = {"precision": "float64", "steps": 2, "warmup_steps": 1, "checkpoint_steps": 2}
    values = settings(output="data/students/compiled", compile=True, **same).as_json()
    command = [sys.executable, "-c", COMPILED, json.dumps(values)]
    done = subprocess.run(command, cwd=project, env=os.environ.copy(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert_same(weights(project / "data/students/compiled"), trained("plain", **same), 1e-9)


def test_an_item_twice_in_a_batch_is_encoded_once_and_teaches_the_same(
    project: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where two unpaired queries draw one partner: without augmentation the student is that of encoding both places."""
    encoded: list[int] = []
    monkeypatch.setattr(Sampler, "batch", _batch_that_repeats)
    monkeypatch.setattr(Towers, "images", _counting(Towers.images, encoded))
    same = {"precision": "float64", "items": "encode", "encode": {"candidates": 1}, "augmentation": {}}
    once = trained("once", **same)
    fewer, encoded[:] = list(encoded), []
    monkeypatch.setattr(meeting, "_once", lambda items, _: meeting.Once(items))
    assert_same(once, trained("each", **same), 1e-9)
    assert [each - one for each, one in zip(encoded, fewer, strict=True)] == [1] * 6


def _batch_that_repeats(sampler: Sampler, step: int) -> BatchRows:
    rows = np.arange(step, step + 8)
    images = np.append(rows[:7], step)  # the first image again, with another caption
    return BatchRows.of_pairs(images, np.append(2 * rows[:7], 2 * step + 1))


def _counting(images: Callable[..., list[Piece]], counts: list[int]) -> Callable[..., list[Piece]]:
    def counted(towers: Towers, step: int, pixels: torch.Tensor, *rest: object) -> list[Piece]:
        counts.append(len(pixels))
        return images(towers, step, pixels, *rest)

    return counted


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_lower_precision_comes_close_and_keeps_float32_weights(project: Path, precision: str) -> None:  # noqa: F811
    """Autocast, with a scaled loss for float16: the losses of the first steps are those of float32 to two digits."""
    clip = str(tiny_clip(project / "clip"))
    values = {"student": clip, "learning_rate": 1e-4, "log_steps": 1, "weight_decay": 0}
    lower = run(settings(output="data/students/lower", precision=precision, **values))
    plain = run(settings(output="data/students/plain", report="data/reports/plain.json", **values))
    assert lower.results["dtype"] == precision
    for ours, theirs in zip(logged(lower, project), logged(plain, project), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-2)
    assert all(tensor.dtype == torch.float32 for tensor in weights(project / "data/students/lower").values())


def test_a_frozen_tower_stays_and_the_rest_moves(project: Path) -> None:  # noqa: F811
    """Not by gradients, not by weight decay."""
    before = AutoModel.from_pretrained(tiny_clip(project / "clip")).state_dict()
    after = trained("frozen", student=str(project / "clip"), freeze=["vision"], learning_rate=1e-2, ema=0)
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith("vision_model") for name in moved)
    assert any(name.startswith("text_model") for name in moved)
    assert "visual_projection.weight" in moved


def test_adapters_are_merged_into_a_plain_folder(project: Path) -> None:  # noqa: F811
    """The saved student has the weights of its class, no more and no less, and they moved."""
    before = AutoModel.from_pretrained(tiny_clip(project / "clip")).state_dict()
    values = {"student": str(project / "clip"), "lora": {"rank": 2}, "learning_rate": 1e-2, "eval_steps": 3, "eval_split": "train"}
    after = trained("adapted", **values)
    model, notes = AutoModel.from_pretrained(project / "data/students/adapted", output_loading_info=True)
    assert not notes["missing_keys"]
    assert not notes["unexpected_keys"]
    assert not hasattr(model, "peft_config")
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert "vision_model.encoder.layers.0.self_attn.q_proj.weight" in moved
    assert "vision_model.encoder.layers.0.self_attn.q_proj.bias" not in moved
    assert "logit_scale" in moved
    torch.rand(7)
    assert_same(trained("again", **values), after, 0.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"items": "bank", "bank": {"candidates": 6, "easy": 3, "memory_gb": 0}, "cprd": {"easy_negatives": "bank"}},
        {"items": "bank", "bank": {"features": "momentum"}, "ema": 0.9},
        {"items": "encode", "encode": {"candidates": 2, "among": 6}},
        {"captions_per_image": "all"},
        {"neighbours": {"known_share": 0.9}},
    ],
    ids=["bank", "momentum", "encode", "captions", "neighbours"],
)
def test_a_run_that_broke_ends_with_the_same_bytes(
    project: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    """Banks, samplers and draws go on where the checkpoint left them."""
    from cprd_pipeline.distillation.learner import Learner

    step = Learner.step

    def broken(self: Learner, number: int, *rest: Any) -> Any:
        if number == 5:
            raise KeyboardInterrupt
        return step(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", broken)
        with pytest.raises(KeyboardInterrupt):
            run(settings(output="data/students/broken", **changes))
    run(settings(output="data/students/broken", **changes))
    whole = run(settings(output="data/students/whole", **changes))
    assert files(project / "data/students/broken") == files(project / "data/students/whole")
    plain = trained("plain")
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in weights(project / "data/students/whole").items())
    if "bank" in changes:
        assert logged(whole, project)[-1]["bank_candidates"] > 0


def test_a_student_that_cannot_checkpoint_activations_is_refused(project: Path) -> None:  # noqa: F811
    """The demo's student has no such thing."""
    with pytest.raises(ModelError, match=r"SceneStudent has no gradient checkpointing.*micro_batch"):
        run(settings(gradient_checkpointing=True))


def test_a_student_whose_pictures_are_not_normalised_is_trained(project: Path) -> None:  # noqa: F811
    """Its image processor may have no deviation, which augmentation then does without; one that it has is not read."""
    clip = tiny_clip(project / "clip")
    file = clip / "preprocessor_config.json"
    content, found = json.loads(file.read_text()), {}
    for name, std in (("none", None), ("unread", [0.1, 0.2, 0.3])):
        file.write_text(json.dumps(content | {"do_normalize": False, "image_std": std}))
        found[name] = trained(name, student=str(clip))
    assert_same(found["none"], found["unread"], 0.0)


def test_event_files_hold_the_log(project: Path) -> None:  # noqa: F811
    """What TensorBoard reads is the training log."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report = run(settings(tensorboard="events"))
    events = EventAccumulator(str(project / "events"))
    events.Reload()
    rows = logged(report, project)
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (row["step"], pytest.approx(row["loss"], rel=1e-6)) for row in rows
    ]
