"""The command `export`: a student's towers as ONNX files, with all that a program without PyTorch needs beside them."""

import importlib
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cprd_pipeline.errors import MissingDependencyError, ModelError, SettingsError, first_line
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.models.encoder_folder import makes_patches, pads_to_maximum
from cprd_pipeline.models.onnx_check import TOLERANCE, Check, check_tower
from cprd_pipeline.models.onnx_towers import OUTPUT, Tower, towers_of, write_tower
from cprd_pipeline.store.atomic import machine_error, place_folder, sync_file, write_json
from cprd_pipeline.store.report import StageReport, Stopwatch

DESCRIPTION = "export.json"
"""What the files are: inputs and outputs by name, the logit scale, the student's fingerprint, the check's result."""

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def export_onnx(student: str, folder: Path | None, opset: int) -> StageReport:
    """Write a student's towers as ONNX files and compare them with PyTorch; the folder appears only when they agree.

    Args:
        student: Folder or hub name of a dual encoder.
        folder: New or empty.
        opset: Version of ONNX' operators.

    Raises:
        SettingsError: No folder is named, it is not empty, or the exporter does not speak this version.
        MissingDependencyError: The extra is not installed.
        ModelError: No dual encoder, one that cannot be written as a graph, or the files give other vectors.
        MachineError: The disk is full, or the folder cannot be written.
    """
    target = _checked(folder)
    _check_packages()
    watch = Stopwatch()
    with watch.measure("loading"):
        encoder = DualEncoder.load(student, torch.device("cpu"), torch.float32)
        if makes_patches(encoder.image_processor):
            raise ModelError(
                f"{student}: {type(encoder.image_processor).__name__} makes patches of pictures of many shapes",
                expected="a student that takes pictures of one size",
            )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
            # One level deeper, since the temporary folder itself is closed to all other users.
            staged = Path(aside) / "export"
            staged.mkdir()
            description = _write(encoder, staged, opset, watch)
            files = {file.name: file.stat().st_size for file in sorted(staged.iterdir())}
            _checked(folder)  # again, since minutes have passed and the new folder would replace what lies there
            place_folder(staged, target)
    except OSError as error:
        raise machine_error(error, target) from error
    settings = {"student": student, "onnx": str(folder), "opset": opset}
    results = {**description, "files": files}
    return StageReport("export", settings, results, _table(student, target, results), watch.seconds)


def _checked(folder: Path | None) -> Path:
    if folder is None:
        raise SettingsError("no --onnx DIR", expected="where the ONNX files shall be written")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise SettingsError(f"--onnx {folder}: is there already", expected="a new or an empty folder", do="choose another one")
    return folder.resolve()


def _check_packages() -> None:
    for package in _PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingDependencyError(
                f"{package} cannot be imported ({first_line(error)})", do="pip install 'cprd-pipeline[onnx]'"
            ) from error


def _write(encoder: DualEncoder, folder: Path, opset: int, watch: Stopwatch) -> dict[str, Any]:
    """Fill the folder; returns its description."""
    encoder.save_preprocessing(folder)
    checks = {}
    towers = towers_of(encoder)
    for tower in towers:
        with watch.measure("exporting"):
            write_tower(tower, folder, opset)
        with watch.measure("checking"):
            checks[tower.name] = check_tower(tower, folder, encoder)
    description = _description(encoder, towers, checks, opset)
    write_json(folder / DESCRIPTION, description)
    for file in folder.iterdir():
        sync_file(file)
    return description


def _description(encoder: DualEncoder, towers: tuple[Tower, ...], checks: dict[str, Check], opset: int) -> dict[str, Any]:
    model = encoder.model
    scale, bias = getattr(model, "logit_scale", None), getattr(model, "logit_bias", None)
    return {
        "towers": {tower.name: {"file": tower.file, "inputs": tower.shapes(), "output": OUTPUT} for tower in towers},
        "embeddings": {"width": _width(encoder), "dtype": "float32", "normalised": True},
        "captions": {
            "max_length": encoder.max_text_tokens,
            "padding": "max_length" if pads_to_maximum(model) else "longest",
            "truncation": True,
        },
        # As a factor: the weight of that name is its logarithm. logits = logit_scale * cosine + logit_bias
        "logit_scale": None if scale is None else float(scale.detach().exp()),
        "logit_bias": None if bias is None else float(bias.detach()),
        "student": encoder.fingerprint,
        "opset": opset,
        "checks": {**{name: asdict(check) for name, check in checks.items()}, "tolerance": TOLERANCE},
    }


def _width(encoder: DualEncoder) -> int:
    with torch.no_grad():
        return int(encoder.embed_captions(["a"]).shape[1])


def _table(student: str, target: Path, results: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("student", student)]
    for name, tower in results["towers"].items():
        size = sum(count for file, count in results["files"].items() if file.startswith(tower["file"]))
        inputs = ", ".join(f"{one} [{', '.join(map(str, shape))}]" for one, shape in tower["inputs"].items())
        rows.append((f"{name} tower", f"{tower['file']}, {size / 1e6:.1f} MB: {inputs}"))
    rows.append(("embeddings", f"{results['embeddings']['width']} wide, float32, of length one"))
    for name, check in results["checks"].items():
        if name != "tolerance":
            rows.append((f"{name} checked", f"{_batches(check)}: off by {check['largest_difference']:.1g} at most"))
    return [*rows, ("written", str(target))]


def _batches(check: dict[str, Any]) -> str:
    lengths = f", up to {max(check['lengths'])} tokens" if check["lengths"] else ""
    return f"batches of {', '.join(map(str, check['batch_sizes']))}{lengths}"
