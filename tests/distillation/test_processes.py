"""Several processes as torchrun starts them: slices, gathering, sums, and a whole training that equals one process'."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import distributed

from cprd_pipeline.distillation import learner
from cprd_pipeline.distillation.processes import Processes, device_of_process, join_processes
from cprd_pipeline.distillation.run import run
from cprd_pipeline.errors import SettingsError
from tests.distillation.test_run import project, settings  # noqa: F401  a fixture
from tests.tiny_encoders import tiny_clip

TRAIN = """
import json, sys, torch
torch.set_num_threads(1)
from cprd_pipeline.distillation.run import run
from cprd_pipeline.distillation.settings import DistillSettings
print(json.dumps(run(DistillSettings.model_validate(json.loads(sys.argv[1]))).results))
"""

GRADIENTS = f"""
import os
from torch.optim.optimizer import register_optimizer_step_pre_hook
kept = []
def keep(optimizer, *_):
    kept.append([weight.grad.clone() for group in optimizer.param_groups for weight in group["params"]])
register_optimizer_step_pre_hook(keep)
{TRAIN}
torch.save(kept[0], f"gradients{{os.environ.get('RANK', 'alone')}}.pt")
"""

MEET = """
import sys, torch
from cprd_pipeline.distillation import learner
from cprd_pipeline.distillation.processes import join_processes
with join_processes(4, torch.device("cpu")) as processes:
    rows = torch.arange(10.0).view(5, 2)
    mine = rows[processes.part(5)]
    assert torch.equal(processes.gather(mine, 5), rows), "gather"
    weights = [torch.full((2, 3), float(processes.rank + 1)), torch.full((4,), 10.0 * processes.rank)]
    processes.add(weights)
    assert weights[0].unique().tolist() == [3.0] and weights[1].unique().tolist() == [10.0], "add"
    agreed = processes.agree([1.5 + processes.rank, float(processes.rank)], torch.device("cpu"))
    assert agreed == [1.5, 0.0], agreed
    processes.wait()
    sys.stdout.write(f"met {processes.size}\\n")  # one write: lines of two processes must not mix
"""


def torchrun(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Two processes of a program, as a user starts them."""
    script = folder / "program.py"
    script.write_text(program)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@given(count=st.integers(0, 50), size=st.integers(1, 7))
def test_slices_follow_each_other_and_differ_by_one_at_most(count: int, size: int) -> None:
    """Every item belongs to one process."""
    parts = [Processes(rank, size).part(count) for rank in range(size)]
    assert [item for part in parts for item in range(count)[part]] == list(range(count))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1


def test_one_process_alone_needs_no_torchrun() -> None:
    """Nothing is sent anywhere."""
    with join_processes(3, torch.device("cpu")) as alone:
        assert alone == Processes(0, 1)
        assert alone.leads
    rows = torch.ones(2, 2, requires_grad=True)
    assert not alone.gather(rows, 2).requires_grad
    assert alone.agree([2.0], torch.device("cpu")) == [2.0]


def test_processes_gather_add_and_agree(tmp_path: Path) -> None:
    """Five rows over two processes come back whole; sums are the same on both; the leading one's numbers count."""
    done = torchrun(tmp_path, MEET)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("met 2") == 2


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(SettingsError, match=r"batch_size is 64, with 3 processes.*share evenly.*set batch_size to 63"):
        with join_processes(64, torch.device("cpu")):
            pass


def test_each_process_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are GPUs and the setting leaves the choice open."""
    assert device_of_process("auto") == "auto"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of_process("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of_process("auto") == device_of_process("cuda") == "cuda:1"
    assert device_of_process("cuda:3") == "cuda:3"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        SettingsError, match=r"device is cuda:3, for several processes; expected auto, cuda or cpu; each takes the GPU"
    ):
        device_of_process("cuda:3")


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "cuda"])
def test_the_backend_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """A run on the CPU of a machine with GPUs sends tensors of the CPU; with GPUs each process has its own before it sends."""
    calls: list[tuple[str, object]] = []

    def begin(backend: str, timeout: timedelta, device_id: torch.device | None = None) -> None:
        assert timeout >= timedelta(hours=1)
        calls.append((backend, device_id))

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda found: calls.append(("set_device", found)))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(distributed, "init_process_group", begin)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: calls.append(("left", None)))
    chosen = torch.device(device)
    with join_processes(4, chosen) as processes:
        assert processes == Processes(1, 2)
    chosen = torch.device("cuda:1") if device == "cuda" else chosen
    begun = [("set_device", chosen), ("nccl", chosen)] if chosen.type == "cuda" else [("gloo", None)]
    assert calls == [*begun, ("left", None)]


def trained(project: Path, name: str, size: int, **changes: Any) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:  # noqa: F811
    """Weights and log of a training by so many processes."""
    values = settings(output=f"data/students/{name}", report=f"data/reports/{name}.json", steps=20, log_steps=1, **changes)
    if size == 1:
        run(values)
    else:
        done = torchrun(project, TRAIN, json.dumps(values.as_json()))
        assert done.returncode == 0, done.stderr
    folder = project / "data/students" / name
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    return load_file(folder / "model.safetensors"), log


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "cprd", "eval_steps": 10, "eval_split": "train", "cosine_steps": 5},
        {"objective": "kl", "items": "encode", "encode": {"candidates": 2}, "micro_batch": 3, "clip_norm": 0.5},
        {"objective": "kl", "items": "bank", "bank": {"candidates": 8, "easy": 4}, "kl": {"easy_negatives": "bank"}, "ema": 0.9},
    ],
    ids=["in_batch", "encode", "bank"],
)
def test_two_processes_train_the_student_that_one_trains(project: Path, changes: dict[str, Any]) -> None:  # noqa: F811
    """In float64 the same weights within 1e-9 after 20 steps, and the same log."""
    one, its_log = trained(project, "one", 1, precision="float64", **changes)
    two, their_log = trained(project, "two", 2, precision="float64", **changes)
    assert {name: tensor.shape for name, tensor in one.items()} == {name: tensor.shape for name, tensor in two.items()}
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-9, msg=name)
    assert len(its_log) == len(their_log) == 20
    for ours, theirs in zip(its_log, their_log, strict=True):
        assert theirs == pytest.approx(ours, abs=1e-9)


def test_dropout_does_not_depend_on_the_number_of_processes(project: Path) -> None:  # noqa: F811
    """Micro-batches of the same size draw the same masks wherever they are encoded."""
    clip = tiny_clip(project / "clip")
    config = json.loads((clip / "config.json").read_text())
    for tower in ("text_config", "vision_config"):
        config[tower]["attention_dropout"] = 0.3
    (clip / "config.json").write_text(json.dumps(config))
    same = {"student": str(clip), "precision": "float64", "micro_batch": 2, "learning_rate": 1e-3}
    one, its_log = trained(project, "one", 1, **same)
    two, their_log = trained(project, "two", 2, **same)
    other, _ = trained(project, "other", 1, **same, seed=1)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-9, msg=name)
    assert [row["loss"] for row in their_log] == pytest.approx([row["loss"] for row in its_log], abs=1e-9)
    assert any(not torch.allclose(other[name], tensor, atol=1e-6) for name, tensor in one.items())


def test_float32_losses_and_gradients_agree_at_first(project: Path) -> None:  # noqa: F811
    """Losses of five steps, gradients of the first: AdamW amplifies rounding where a true gradient is zero."""
    one, two = (json.dumps(settings(steps=5, log_steps=1, output=f"data/students/{name}").as_json()) for name in ("one", "two"))
    subprocess.run([sys.executable, "-c", GRADIENTS, one], cwd=project, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    done = torchrun(project, GRADIENTS, two)
    assert done.returncode == 0, done.stderr
    alone, first, second = (torch.load(project / f"gradients{name}.pt", weights_only=True) for name in ("alone", "0", "1"))
    assert sum(float(grad.abs().sum()) > 0 for grad in alone) > 5
    for expected, ours, theirs in zip(alone, first, second, strict=True):
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)
    logs = (project / "data/students" / name / "training_log.jsonl" for name in ("one", "two"))
    ours, theirs = ([json.loads(line)["loss"] for line in log.read_text().splitlines()] for log in logs)
    assert len(ours) == 5
    assert theirs == pytest.approx(ours, rel=1e-4)


def test_processes_go_on_from_what_one_left(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A run of one process that broke is finished by two, with the student of an unbroken run."""
    whole, _ = trained(project, "whole", 1, precision="float64")
    step = learner.Learner.step

    def broken(self: learner.Learner, number: int, *rest: Any) -> Any:
        if number == 7:
            raise KeyboardInterrupt
        return step(self, number, *rest)

    values = {"output": "data/students/broken", "report": "data/reports/broken.json", "steps": 20, "log_steps": 1}
    with monkeypatch.context() as patch:
        patch.setattr(learner.Learner, "step", broken)
        with pytest.raises(KeyboardInterrupt):
            run(settings(precision="float64", **values))
    resumed, log = trained(project, "broken", 2, precision="float64")
    assert len(log) == 20
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=1e-9, msg=name)
