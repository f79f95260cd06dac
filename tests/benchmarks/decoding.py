"""Decoding and digesting real photographs at `prepare`, against Pillow's bare decoding; reading packed ones, against files.

Run: `CPRD_TEST_DATA=... OMP_NUM_THREADS=1 python tests/benchmarks/decoding.py`
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cprd_pipeline.corpus.formats.records import ImageRecord
from cprd_pipeline.corpus.inspection import inspect, inspect_images
from cprd_pipeline.corpus.originals import read_original
from cprd_pipeline.corpus.packing import PackedImages, pack_images
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter

PHOTOGRAPHS, PROCESSES, REPEATS = 1000, 2, 5


def decode(path: str) -> tuple[int, int]:
    """Pillow's own part: open, decode, RGB."""
    with Image.open(path) as picture:
        return picture.convert("RGB").size


def bare(root: Path, names: list[str]) -> None:
    """Pillow on a pool, its tasks in pieces as a careful user would have them."""
    with multiprocessing.get_context("forkserver").Pool(PROCESSES) as pool:
        pool.map(decode, [str(root / name) for name in names], chunksize=16)
        pool.close()
        pool.join()


def ours(root: Path, names: list[str]) -> None:
    """As `prepare` does it, the resumable state included."""
    with tempfile.TemporaryDirectory() as state:
        found = inspect_images([ImageRecord(name, "train", name) for name in names], root, PROCESSES, Path(state))
    assert not any(seen.reason for seen in found)


def alone(root: Path, names: list[str]) -> tuple[float, float]:
    """CPU seconds of this process, Pillow's and ours: what a shared machine disturbs least."""
    return (
        _cpu_seconds(lambda: [decode(str(root / name)) for name in names]),
        _cpu_seconds(lambda: [inspect(root, ImageRecord(name, "train", name)) for name in names]),
    )


def packed(root: Path, names: list[str]) -> str:
    """CPU microseconds to read an image's bytes from shards and from files of their own, in order and at random."""
    images = [ImageRecord(name, "train", name) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CPRD_CACHE"] = folder
        writer = OutputWriter(Path(folder) / "corpus", "corpus", {}, {})
        pack_images(images, [bytes_digest((root / name).read_bytes()) for name in names], root, writer, 0)
        writer.finish()
        shards = PackedImages(InputFolder(writer.target, "corpus"))
        told = []
        rows = np.arange(len(names))
        for name, order in (("in order", rows), ("at random", np.random.default_rng(0).permutation(rows))):
            seconds = [
                _cpu_seconds(lambda order=order: [shards[row].read() for row in order]),
                _cpu_seconds(lambda order=order: [read_original(root, images[row]) for row in order]),
            ]
            told.append(f"{name} {seconds[0] / len(names) * 1e6:.0f} packed, {seconds[1] / len(names) * 1e6:.0f} in files")
    return "; ".join(told)


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(run: str, root: Path) -> float:
    """Wall-clock seconds in a fresh process, the start of the pool and of its workers included."""
    command = [sys.executable, __file__, run, str(root)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def run_one(run: Callable[[Path, list[str]], None], root: Path) -> None:
    """What the fresh process does; it prints its seconds."""
    names = sorted(path.name for path in root.glob("*.jpg"))[:PHOTOGRAPHS]
    for name in names:
        (root / name).read_bytes()  # from now on in memory
    start = time.perf_counter()
    run(root, names)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    if sys.argv[1:]:
        run_one({"bare": bare, "ours": ours}[sys.argv[1]], Path(sys.argv[2]))
    else:
        folder = Path(os.environ["CPRD_TEST_DATA"]) / "photos" / "images"
        seconds = [(measure("bare", folder), measure("ours", folder)) for _ in range(REPEATS)]
        photographs = sorted(path.name for path in folder.glob("*.jpg"))[:PHOTOGRAPHS]
        in_one_process = [alone(folder, photographs) for _ in range(REPEATS)]
        for name, times in (("two processes, wall-clock", seconds), ("one process, CPU", in_one_process)):
            plain, full = (min(column) for column in zip(*times, strict=True))
            print(f"{name}: Pillow {plain:.2f} s, decoding and digesting {full:.2f} s, ratio {full / plain:.2f}")
        print(f"reading, microseconds an image: {packed(folder, photographs)}")
