"""The two towers of a dual encoder as ONNX files, each with the normalisation at its end.

Shape suffixes: B batch, C channels, H height, W width, T tokens, D width of the common space.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim

from cprd_pipeline.errors import ModelError, SettingsError, first_line
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.models.encoder_features import image_features, normalised, text_features
from cprd_pipeline.models.encoder_folder import pads_to_maximum

OUTPUT = "embeddings"
"""Name of the output of both towers: float32 [B, D], of length one."""

# What is traced: two items each, since a size of one would be taken for a constant.
_CAPTIONS = ("a photo of a dog", "a photo of two cats")
_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


@dataclass(frozen=True)
class Tower:
    """One tower, ready to be written.

    Args:
        name: "image" or "text".
        module: Computes the embeddings.
        inputs: What it is traced with, by name.
        axes: Of each input, its axes that may have any size, with their names.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    axes: dict[str, dict[int, Dim]]

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.name}_tower.onnx"

    def shapes(self) -> dict[str, list[int | str]]:
        """Of each input, the sizes of its axes; a name where the size is free."""
        free = {name: {axis: dim.__name__ for axis, dim in axes.items()} for name, axes in self.axes.items()}
        return {name: [free[name].get(axis, size) for axis, size in enumerate(value.shape)] for name, value in self.inputs.items()}


class _ImageTower(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        return normalised(image_features(self.model, pixel_values=pixel_values))


class _TextTower(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B D"]:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return normalised(text_features(self.model, input_ids=input_ids, attention_mask=mask))


def towers_of(encoder: DualEncoder) -> tuple[Tower, Tower]:
    """Image tower and text tower of an encoder in float32 on the CPU."""
    batch = Dim("batch")
    pixels = encoder.pixels(noise_pictures(len(_CAPTIONS), seed=0))
    image = Tower("image", _ImageTower(encoder.model).eval(), {"pixel_values": pixels}, {"pixel_values": {0: batch}})
    tokens, axes = encoder.tokens(_CAPTIONS), {0: batch, 1: Dim("length", max=encoder.max_text_tokens)}
    if pads_to_maximum(encoder.model):
        # Read without a mask: as an input it could only be given wrongly, by whoever passes on what the tokenizer made.
        del tokens["attention_mask"]
        axes = {0: batch}
    return image, Tower("text", _TextTower(encoder.model).eval(), tokens, dict.fromkeys(tokens, axes))


def noise_pictures(count: int, seed: int) -> list[Image.Image]:
    """Pictures of noise, of several shapes: what an image processor resizes to one."""
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (40 + 8 * row, 64, 3), dtype=np.uint8)) for row in range(count)]


def write_tower(tower: Tower, folder: Path, opset: int) -> None:
    """Write a tower's file; weights above two gigabytes lie in a second one beside it, `<file>.data`.

    Args:
        tower: The tower.
        folder: Where the file shall be.
        opset: Version of ONNX' operators.

    Raises:
        ModelError: The model does what cannot be written as a graph.
        SettingsError: The exporter does not speak this version.
    """
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                tower.module,
                kwargs=tower.inputs,
                output_names=[OUTPUT],
                dynamic_shapes=tower.axes,
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise ModelError(f"the {tower.name} tower cannot be written as ONNX ({reason})") from error
    if (written := program.model.opset_imports[""]) != opset:
        # Only logged by the exporter, which then writes another version.
        raise SettingsError(f"--opset {opset}: PyTorch wrote {written} instead", expected="a version that it speaks")
    _forget_origin(program.model)
    program.save(folder / tower.file, external_data=False)


def _forget_origin(model: Any) -> None:
    """Leave out where the code lay that each node was traced from: paths of this machine, as large as a small model."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    values: list[Any] = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        values += node.outputs
    for value in values:
        value.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks off the terminal: on operators of packages that are absent, and on its own deprecations."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
