"""Which device and number type a stage computes with: chosen by what is there, said in the output.

By name for a stage that may get by without a model: torch, which takes a second to import, is asked only where there may be a
GPU. Everybody else gets torch's own objects.
"""

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cprd_pipeline.errors import MachineError, SettingsError

if TYPE_CHECKING:
    import torch

DeviceChoice = str
"""`auto`, `cpu`, `cuda` or `cuda:N`."""

DtypeChoice = Literal["auto", "float32", "bfloat16", "float16", "float64"]

CPU = "cpu"

_NVIDIAS_DRIVER = "libcuda.so.1"
_AMDS_DRIVER = Path("/dev/kfd")


def choose_device(choice: DeviceChoice) -> "torch.device":
    """The device of a setting; `auto` is the first CUDA device when there is one.

    Raises:
        SettingsError: Not the name of a device.
        MachineError: CUDA was asked for and is not there.
    """
    import torch

    if choice == "auto":
        return _prepared(torch.device("cuda" if torch.cuda.is_available() else CPU))
    try:
        device = torch.device(choice)
    except RuntimeError:
        raise SettingsError(f"device is {choice!r}", expected="auto, cpu, cuda or cuda:N") from None
    if device.type not in (CPU, "cuda"):
        raise SettingsError(f"device is {choice!r}", expected="auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MachineError(f"device {choice}: {torch.cuda.device_count()} CUDA devices are there", do="set device to auto or cpu")
    return _prepared(device)


def _prepared(device: "torch.device") -> "torch.device":
    """The device, with two habits of CUDA's put off for the rest of the process."""
    import torch

    if device.type == "cuda":
        # Convolutions would round their inputs to 10 bits (TF32): float32 is a part of fingerprints, and means float32.
        torch.backends.cudnn.allow_tf32 = False
        # cuDNN's attention plans anew for every shape, and captions have many lengths; the other kernels do not.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return device


def choose_dtype(choice: DtypeChoice, device: "torch.device") -> "torch.dtype":
    """The number type of a setting; `auto` is bfloat16 on a CUDA device that computes with it, float32 elsewhere."""
    import torch

    if choice == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}[choice]


def random_devices(device: "torch.device") -> "list[torch.device]":
    """Whose random state a training on a device changes, beside the CPU's: that of no other GPU."""
    return [] if device.type == CPU else [device]


def device_name(choice: DeviceChoice) -> str:
    """What `choose_device` chooses, as a name; torch is not imported where that can only be the CPU.

    Raises:
        SettingsError: Not the name of a device.
        MachineError: CUDA was asked for and is not there.
    """
    if choice == CPU or (choice == "auto" and not _may_have_gpu()):
        return CPU
    return str(choose_device(choice))


def dtype_name(choice: DtypeChoice, device: str) -> str:
    """What `choose_dtype` chooses, as a name such as `float32`.

    Args:
        choice: The setting.
        device: As `device_name` names it.
    """
    if choice != "auto":
        return choice
    if device == CPU:
        return "float32"
    import torch

    return plain_name(choose_dtype(choice, torch.device(device)))


def plain_name(dtype: "torch.dtype | str") -> str:
    """A number type's name without torch's prefix: `float32`."""
    return str(dtype).removeprefix("torch.")


def device_title(device: str) -> str:
    """A device for people: a GPU by its product name."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(torch.device(device))


def _may_have_gpu() -> bool:
    """Whether a driver is there; without one torch finds no GPU, and with one it may still find none."""
    try:
        ctypes.CDLL(_NVIDIAS_DRIVER)
    except OSError:
        return _AMDS_DRIVER.exists()
    return True
