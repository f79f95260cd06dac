"""The weights of a model folder as bytes: their digest needs no torch, which a run without a model would load for nothing else."""

import hashlib
import json
import mmap
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from cprd_pipeline.errors import ModelError, first_line
from cprd_pipeline.store.digest_memory import remembered_digest
from cprd_pipeline.store.fingerprint import DIGEST_BYTES, json_digest

# What torch calls the number types of safetensors: the digest holds torch's names.
_TORCH_NAMES = {
    "BOOL": "torch.bool",
    "U8": "torch.uint8",
    "I8": "torch.int8",
    "U16": "torch.uint16",
    "I16": "torch.int16",
    "U32": "torch.uint32",
    "I32": "torch.int32",
    "U64": "torch.uint64",
    "I64": "torch.int64",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
    "F32": "torch.float32",
    "F64": "torch.float64",
    "C64": "torch.complex64",
    "F8_E4M3": "torch.float8_e4m3fn",
    "F8_E4M3FNUZ": "torch.float8_e4m3fnuz",
    "F8_E5M2": "torch.float8_e5m2",
    "F8_E5M2FNUZ": "torch.float8_e5m2fnuz",
    "F8_E8M0": "torch.float8_e8m0fnu",
}
_LENGTH_BYTES = 8
_ADAPTER = "adapter_config.json"
_LFS = b"version https://git-lfs"


class _Stored(NamedTuple):
    """One tensor: torch's name of its number type, its shape, and its bytes in the order of rows."""

    dtype: str
    shape: list[int]
    content: memoryview


def tensors_digest(folder: Path) -> str:
    """Digest of a model's weights: names, types, shapes and bytes, whatever the file layout or path.

    Of large files it is remembered until they change.

    Raises:
        ModelError: The folder holds no weights, or not all, or they cannot be read.
    """
    if (folder / _ADAPTER).is_file():
        raise ModelError(
            f"{folder}: an adapter ({_ADAPTER}), whose base model is elsewhere",
            expected="all weights in one folder",
            do="merge them (peft: model.merge_and_unload().save_pretrained(folder))",
        )
    return _remembered(folder, _weight_files(folder))


def _remembered(folder: Path, files: list[Path]) -> str:
    return remembered_digest("tensors 1", files, lambda: _digest(folder, files))


def _digest(folder: Path, files: list[Path]) -> str:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    count = 0
    for name, tensor in _tensors(files):
        digest.update(json.dumps([name, tensor.dtype, tensor.shape]).encode())
        digest.update(tensor.content)
        count += 1
    if not count:
        raise ModelError(
            f"{folder}: no weights in it",
            expected="model.safetensors (or pytorch_model.bin)",
            do="name a folder that save_pretrained wrote",
        )
    return digest.hexdigest()


def has_weights(folder: Path) -> bool:
    """Whether there are weights that `from_pretrained` reads.

    Raises:
        ModelError: As `tensors_digest`.
    """
    return bool(_weight_files(folder))


def own_tensors_digest(folder: Path) -> str:
    """As `tensors_digest`, of a folder that is read by somebody else's code: every file of weights counts.

    Raises:
        ModelError: As `tensors_digest`.
    """
    own = sorted({*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin"), *_weight_files(folder)})
    if len(own) > 1 and own != _weight_files(folder):
        return json_digest([[file.name, _remembered(folder, [file])] for file in own])
    return _remembered(folder, own)


def refuse_pointers(folder: Path) -> None:
    """Refuse a clone whose large files version control did not bring.

    Raises:
        ModelError: One of the weight files is a Git LFS pointer.
    """
    for path in filter(Path.is_file, _weight_files(folder)):
        with path.open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                raise ModelError(
                    f"{path}: a Git LFS pointer, not the weights", do="fetch the file itself with `git lfs pull` in its clone"
                )


def _weight_files(folder: Path) -> list[Path]:
    """The files that `from_pretrained` reads, in the order of their names, and none that lies beside them.

    Raises:
        ModelError: One of them is gone, or an index cannot be read.
    """
    for name in _whole_names(folder):
        if (folder / name).is_file():
            return [folder / name]
        if (index := folder / f"{name}.index.json").is_file():
            return _shards(index)
    return []


def _whole_names(folder: Path) -> list[str]:
    """What a file with all weights may be called, the first choice of transformers first; a config may name one."""
    try:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("transformers_weights")
    except (OSError, ValueError, AttributeError):
        named = None  # whoever reads the configuration says what is wrong with it
    return [str(named).removesuffix(".index.json")] if named else ["model.safetensors", "pytorch_model.bin"]


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        shards = [index.parent / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(
            f"{index}: cannot be read", expected="an index as save_pretrained wrote it", do="copy the model folder again"
        ) from None
    for shard in shards:
        if not shard.is_file():
            raise ModelError(f"{shard}: is gone", expected=f"every file that {index.name} names", do="copy the model folder again")
    return shards


def _tensors(files: list[Path]) -> Iterator[tuple[str, _Stored]]:
    """All tensors in the order of their names; of a name in two files that of the later one."""
    stored: dict[str, _Stored] = {}
    for path in files:
        stored.update(_read(path) if path.suffix == ".safetensors" else _pickled(path))
    yield from sorted(stored.items())


def _read(path: Path) -> dict[str, _Stored]:
    """The tensors of a file, memory-mapped; the library checks that its header is sound."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error})", expected="a safetensors file") from None
    with path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(bytes(content[_LENGTH_BYTES:start]))
    header.pop("__metadata__", None)
    if unknown := {entry["dtype"] for entry in header.values()} - _TORCH_NAMES.keys():
        raise ModelError(f"{path}: weights of type {', '.join(sorted(unknown))}", expected=f"one of {', '.join(_TORCH_NAMES)}")
    return {
        name: _Stored(_TORCH_NAMES[entry["dtype"]], entry["shape"], content[slice(*(start + at for at in entry["data_offsets"]))])
        for name, entry in header.items()
    }


def _pickled(path: Path) -> dict[str, _Stored]:
    """The tensors of a file of PyTorch's own, which only torch can read."""
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        reason = first_line(error)
        raise ModelError(f"{path}: cannot be read ({reason})", expected="tensors by name, as torch.save wrote them") from None
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise ModelError(f"{path}: holds more than tensors by name", expected="the weights alone, not a training's checkpoint")
    return {
        # Bytes rather than values, since NumPy knows no bfloat16.
        name: _Stored(str(tensor.dtype), list(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for name, tensor in found.items()
    }
