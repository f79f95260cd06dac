"""What pictures cost the training process when they do not fit into its memory.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.training_pictures [--workers 2] [--pictures 512] [--rounds 3]

JPEG photographs of 640 x 480 pixels (smooth random ones), CLIP's image processor for 224 x 224, batches of 64. "in the loop"
decodes in the workers and preprocesses batches in the training process, as the loop did before; "by workers" is `PixelSource` as
it is. The CPU time of the training process bounds the pictures a second, however many workers there are.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.pixels import PixelSource
from cprd_pipeline.models.preprocessing import Pixels
from tests.tiny_encoders import write_corpus

BATCH = 64


def photographs(folder: Path, count: int) -> Corpus:
    """A corpus of smooth random pictures."""
    draws, images = np.random.default_rng(0), []
    for number in range(count):
        coarse = Image.fromarray(draws.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        file = io.BytesIO()
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        images.append((f"i{number}", file.getvalue(), "train"))
    return Corpus(write_corpus(folder, images, [("c0", "a", "train")], [("i0", "c0")]))


def in_the_loop(corpus: Corpus, workers: int, rows: list[np.ndarray]) -> Iterator[torch.Tensor]:
    """Workers decode, this process does the rest."""
    processor = CLIPImageProcessorPil()
    with ImageReader(corpus, workers) as reader:
        stream = reader.prepared(np.concatenate(rows))
        for batch in rows:
            yield processor(images=[next(stream) for _ in batch], return_tensors="pt")["pixel_values"]


def by_workers(corpus: Corpus, workers: int, rows: list[np.ndarray]) -> Iterator[torch.Tensor]:
    """Workers decode and preprocess."""
    with ImageReader(corpus, workers, Pixels(CLIPImageProcessorPil())) as reader:
        yield from PixelSource(reader, 0).batches(rows)


def _some(batch: torch.Tensor) -> float:
    """A sum that tells pictures apart and takes next to no time."""
    return float(batch[:, :, ::37, ::37].double().sum())


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        corpus = photographs(Path(folder), options.pictures)
        rows = list(np.arange(options.pictures).reshape(-1, BATCH))
        sums = set()
        for _ in range(options.rounds):
            for way in (in_the_loop, by_workers):
                batches = way(corpus, options.workers, rows)
                total = _some(next(batches))  # The processes are up then.
                clock, cpu = time.perf_counter(), time.process_time()
                total += sum(map(_some, batches))
                spent = time.process_time() - cpu, time.perf_counter() - clock
                found.setdefault(way.__name__, []).append(spent)
                sums.add(total)
    assert len(sums) == 1, "the pictures differ"
    count = options.pictures - BATCH
    print(f"\n{options.workers} workers, {count} pictures, {options.rounds} rounds; medians\n")
    print("| preprocessed | CPU of the training process, ms a picture | pictures a second, at most | clock, ms a picture |")
    print("|---|---|---|---|")
    for name, spent in found.items():
        cpu, clock = (1000 * statistics.median(column) / count for column in zip(*spent, strict=True))
        print(f"| {name.replace('_', ' ')} | {cpu:.2f} | {1000 / cpu:.0f} | {clock:.2f} |")


if __name__ == "__main__":
    main()
