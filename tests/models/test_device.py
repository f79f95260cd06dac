"""Devices and number types by name are those that torch chooses; torch is not asked where the answer is known."""

from typing import Any, get_args

import pytest
import torch

from cprd_pipeline.errors import MachineError, SettingsError
from cprd_pipeline.models import device as device_module
from cprd_pipeline.models.device import (
    DtypeChoice,
    choose_device,
    choose_dtype,
    device_name,
    device_title,
    dtype_name,
    plain_name,
)


@pytest.mark.parametrize("choice", ["auto", "cpu"])
@pytest.mark.parametrize("dtype", get_args(DtypeChoice))
def test_names_are_those_of_torchs_choice(choice: str, dtype: Any) -> None:
    """On this machine, for every choice."""
    device = choose_device(choice)
    assert device_name(choice) == str(device)
    assert dtype_name(dtype, str(device)) == plain_name(choose_dtype(dtype, device))
    assert getattr(torch, dtype_name(dtype, str(device))) == choose_dtype(dtype, device)


@pytest.mark.parametrize("supported", [True, False])
def test_where_a_driver_is_torch_decides(supported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that torch finds is taken, with the number type that torch says it has, and called by its product name."""
    monkeypatch.setattr(device_module, "_may_have_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported and not including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    name = device_name("auto")
    assert name == "cuda"
    assert dtype_name("auto", name) == ("bfloat16" if supported else "float32")
    assert device_title(name) == "GPU of cuda"


def test_float32_means_float32_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions do not round to TF32, and attention over many lengths is not planned anew for each."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    attention: list[bool] = []
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", attention.append)
    choose_device("cpu")
    assert torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for choice in ("auto", "cuda", "cuda:0"):
        choose_device(choice)
        assert not torch.backends.cudnn.allow_tf32
    assert attention == [False] * 3


@pytest.mark.parametrize("choice", ["meta", "mps", "xpu", "tpu", ""])
def test_devices_that_nothing_here_runs_on_are_refused(choice: str) -> None:
    """Whether torch knows their names or not."""
    with pytest.raises(SettingsError, match=f"device is '{choice}'; expected auto, cpu, cuda or cuda:N"):
        device_name(choice)


def test_a_driver_alone_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's driver, or AMD's, on a machine where torch finds no device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device_module.ctypes, "CDLL", lambda name: name)
    assert (device_name("auto"), device_title("cpu")) == ("cpu", "cpu")
    assert device_module._may_have_gpu()


def test_without_a_driver_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing it would take longer than a whole run over cached vectors."""

    def refuse(*_: object) -> None:
        raise OSError("no such library")

    monkeypatch.setattr(device_module.ctypes, "CDLL", refuse)
    monkeypatch.setattr(device_module, "choose_device", refuse)
    assert device_name("auto") == device_name("cpu") == "cpu"


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ("gpu", SettingsError, "device is 'gpu'; expected auto, cpu, cuda or cuda:N"),
        ("cuda:99", MachineError, r"device cuda:99: \d+ CUDA devices are there; set device to auto or cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused(choice: str, error: type[Exception], message: str) -> None:
    """By name as by torch's object."""
    for choose in (device_name, choose_device):
        with pytest.raises(error, match=message):
            choose(choice)
