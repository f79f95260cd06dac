"""Exported towers in onnxruntime against PyTorch, on other batches than the traced ones.

Shape suffixes: B batch, D width of the common space.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.errors import ModelError, first_line
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.models.onnx_towers import OUTPUT, Tower, noise_pictures

TOLERANCE = 1e-5
"""Largest difference of any number of a unit vector that counts as rounding.

Measured: 9e-7 at most for random models of a few kilobytes, 2e-7 for CLIP ViT-B/32 and ViT-L/14, SigLIP base and BERT with ViT.
"""

_BATCH_SIZES = (1, 3, 5)


@dataclass(frozen=True)
class Check:
    """What a tower was compared on, and how far it was off.

    Args:
        batch_sizes: Items of each batch.
        lengths: Tokens of each batch's longest caption; empty for pictures.
        largest_difference: Over all numbers of all unit vectors.
    """

    batch_sizes: tuple[int, ...]
    lengths: tuple[int, ...]
    largest_difference: float


def check_tower(tower: Tower, folder: Path, encoder: DualEncoder) -> Check:
    """Compare a written tower with the encoder that it was made of.

    Args:
        tower: The tower.
        folder: Where its file lies.
        encoder: In float32 on the CPU.

    Raises:
        ModelError: onnxruntime cannot run it on some batch, or its vectors are others.
    """
    run = _runner(tower, folder)
    sizes, lengths, largest = [], [], 0.0
    for inputs, expected in _batches(tower, encoder):
        found = run(inputs)
        difference = float((found - expected).abs().max()) if found.shape == expected.shape else math.inf
        if not difference <= TOLERANCE:  # written so that NaN is refused too
            raise ModelError(
                f"the exported {tower.name} tower is off by {difference:.2g} on a batch of {len(expected)}",
                expected=f"PyTorch's vectors within {TOLERANCE:g}",
                do="try another --opset",
            )
        sizes.append(len(expected))
        lengths += [inputs["input_ids"].shape[1]] if "input_ids" in inputs else []
        largest = max(largest, difference)
    return Check(tuple(sizes), tuple(lengths), largest)


def _runner(tower: Tower, folder: Path) -> Callable[[dict[str, Tensor]], Float[Tensor, "B D"]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings tell of optimisations that it leaves out
    session = _or_refuse(
        tower, lambda: onnxruntime.InferenceSession(folder / tower.file, options, providers=["CPUExecutionProvider"])
    )

    def run(inputs: dict[str, Tensor]) -> Float[Tensor, "B D"]:
        arrays = {name: value.numpy() for name, value in inputs.items()}
        return torch.as_tensor(_or_refuse(tower, lambda: session.run([OUTPUT], arrays))[0])

    return run


def _or_refuse(tower: Tower, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:  # onnxruntime's own errors have no other class in common
        raise ModelError(
            f"onnxruntime cannot run the exported {tower.name} tower ({first_line(error)})", do="try another --opset"
        ) from error


def _batches(tower: Tower, encoder: DualEncoder) -> Iterator[tuple[dict[str, Tensor], Float[Tensor, "B D"]]]:
    """Inputs and what PyTorch makes of them, through the encoder's own methods rather than the module that was traced."""
    with torch.no_grad():
        if tower.name == "image":
            for size in _BATCH_SIZES:
                pixels = encoder.pixels(noise_pictures(size, seed=size))
                yield {"pixel_values": pixels}, encoder.embed_images(pixels)
            return
        for captions in _captions(encoder):
            tokens = encoder.tokens(captions)
            yield {name: tokens[name] for name in tower.inputs}, encoder.embed_texts(**tokens)


def _captions(encoder: DualEncoder) -> Iterator[list[str]]:
    """Random words of the tokenizer's: one alone, some of several lengths, and with one that is cut at the model's limit."""
    rng = np.random.default_rng(0)
    for size, longest in zip(_BATCH_SIZES, (1, 8, 2 * encoder.max_text_tokens), strict=True):
        counts = np.linspace(longest, 1, size).astype(int)
        ids = [rng.integers(0, len(encoder.tokenizer), count) for count in counts]
        yield [encoder.tokenizer.decode(row, skip_special_tokens=True) for row in ids]
