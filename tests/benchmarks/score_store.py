"""Bytes and seconds of the score store at a million pairs and at ten million.

Run: `OMP_NUM_THREADS=1 python -m tests.benchmarks.score_store --pairs 1000000`

25,000 images, 125,000 captions, random scores; appends of 16,384 pairs, whole images at a time, as the scoring loop makes them.
"""

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from cprd_pipeline.store.score_check import verify
from cprd_pipeline.store.score_compaction import compact
from cprd_pipeline.store.scores import ScoreStore

IMAGES, CAPTIONS, PART = 25_000, 125_000, 16_384


def size(folder: Path) -> int:
    """Bytes of everything in the folder, logs and replaced files included."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Fill, read, compact, read again, verify."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=1_000_000)
    pairs = parser.parse_args().pairs
    draws = np.random.default_rng(0)
    images, captions = (draws.integers(0, 256, (count, 16), dtype=np.uint8) for count in (IMAGES, CAPTIONS))
    each = pairs // IMAGES
    codes = np.sort(np.concatenate([draws.choice(CAPTIONS, each, replace=False) + image * CAPTIONS for image in range(IMAGES)]))
    scores = draws.standard_normal(len(codes)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        store = ScoreStore(f"{name}/scores")
        folder = Path(name) / "scores"

        def timed(what: str, run: object) -> None:
            start, cpu = time.perf_counter(), time.process_time()
            run()
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"| {what} | {wall:.2f} s | {cpu:.2f} s | {size(folder) / len(codes):.2f} | {peak:.2f} GB |", flush=True)

        def fill() -> None:
            for start in range(0, len(codes), PART):
                part = codes[start : start + PART]
                store.append("t" * 32, "both", images[part // CAPTIONS], captions[part % CAPTIONS], scores[start : start + PART])

        def read() -> None:
            found = store.known("t" * 32, "both", images, captions)
            assert np.array_equal(found.codes, codes)
            assert np.array_equal(found.scores, scores)

        print(f"{len(codes):,} pairs\n| step | time | CPU | bytes a pair on disk | peak memory so far |\n|---|---|---|---|---|")
        timed("append", fill)
        timed("read", read)
        timed("compact", lambda: compact(store, ["t" * 32]))
        timed("read after compact", read)
        timed("verify", lambda: verify(store))
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
