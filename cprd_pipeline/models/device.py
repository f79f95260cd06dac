"""Which device and number type a stage computes with: chosen by what is there, said in the output."""

from typing import Literal

import torch

from cprd_pipeline.errors import MachineError, SettingsError

DeviceChoice = str
"""`auto`, `cpu`, `cuda` or `cuda:N`."""

DtypeChoice = Literal["auto", "float32", "bfloat16", "float16", "float64"]


def choose_device(choice: DeviceChoice) -> torch.device:
    """The device of a setting; `auto` is the first CUDA device when there is one.

    Raises:
        SettingsError: Not the name of a device.
        MachineError: CUDA was asked for and is not there.
    """
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(choice)
    except RuntimeError:
        raise SettingsError(f"device is {choice!r}", expected="auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MachineError(f"device {choice}: {torch.cuda.device_count()} CUDA devices are there", do="set device to auto or cpu")
    return device


def choose_dtype(choice: DtypeChoice, device: torch.device) -> torch.dtype:
    """The number type of a setting; `auto` is bfloat16 on a CUDA device that computes with it, float32 elsewhere."""
    if choice == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}[choice]
