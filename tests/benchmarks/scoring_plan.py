"""Seconds and memory of planning: which of many requested pairs has the teacher never seen?

Run: `OMP_NUM_THREADS=1 python -m tests.benchmarks.scoring_plan --images 25000 --captions-each 5 --k 64 --stored 0.5`

Candidates are written as `mine` writes them (ids as strings, parts of 8,192 queries), a share of the pairs is put into a
score store, and then `score-teacher`'s planning runs in a process of its own, which prints its time and its peak memory.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from cprd_pipeline.corpus.reader import Items
from cprd_pipeline.scoring.candidates import read_parts
from cprd_pipeline.scoring.pairs import DIRECTIONS, PairSpace
from cprd_pipeline.scoring.plan import make_plan, wanted_pairs
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import CANDIDATES
from cprd_pipeline.store.scores import ScoreStore

PART = 8192


def items(count: int, prefix: str) -> Items:
    """Ids and random digests."""
    digests = np.random.default_rng(ord(prefix)).integers(0, 256, (count, 16), dtype=np.uint8)
    return Items([f"{prefix}{row:09d}" for row in range(count)], digests, np.array(["train"] * count, dtype=np.object_))


def space_of(arguments: argparse.Namespace) -> PairSpace:
    """The corpus of the run."""
    return PairSpace(items(arguments.images, "i"), items(arguments.images * arguments.captions_each, "c"))


def write_candidates(folder: Path, arguments: argparse.Namespace, space: PairSpace) -> int:
    """K neighbours of each query, near its own place so that both directions share pairs; the number of pairs."""
    draws = np.random.default_rng(0)
    writer = OutputWriter(folder, "candidates", {}, {})
    pairs = 0
    for direction in DIRECTIONS:
        queries, others = space.sides(direction)
        ratio = len(others) / len(queries)
        for number, start in enumerate(range(0, len(queries), PART)):
            rows = np.arange(start, min(start + PART, len(queries)))
            near = (rows[:, None] * ratio).astype(np.int64) + draws.integers(
                -5 * arguments.k, 5 * arguments.k, (len(rows), arguments.k)
            )
            found = near % len(others)
            offsets = pa.array(np.arange(len(rows) + 1) * arguments.k, pa.int32())
            own = pa.array(np.arange(len(rows) + 1), pa.int32())
            values = pa.array(np.zeros(found.size, dtype=np.float32))
            positive = others.ids.take(pa.array((rows * ratio).astype(np.int64)))
            columns = [
                queries.ids.take(pa.array(rows)),
                pa.array([direction] * len(rows)),
                pa.ListArray.from_arrays(offsets, others.ids.take(pa.array(found.ravel()))),
                pa.ListArray.from_arrays(offsets, values),
                pa.ListArray.from_arrays(own, positive),
                pa.ListArray.from_arrays(own, values[: len(rows)]),
                *[pa.array(np.zeros(len(rows)), pa.int32())] * (len(CANDIDATES) - 6),
            ]
            writer.write_table(f"{direction}-{number:05d}.parquet", pa.table(columns, schema=CANDIDATES))
            pairs += found.size + len(rows)
    writer.finish()
    return pairs


def fill_store(folder: Path, arguments: argparse.Namespace, space: PairSpace) -> None:
    """Put a share of the wanted pairs into a store."""
    wanted, _ = wanted_pairs(read_parts(InputFolder(folder / "candidates", "candidates"), space, DIRECTIONS), space)
    kept = wanted[np.random.default_rng(1).random(len(wanted)) < arguments.stored]
    store = ScoreStore(str(folder / "scores"))
    for start in range(0, len(kept), 1 << 20):
        codes = kept[start : start + (1 << 20)]
        images, captions = space.images.digests[space.images_of(codes)], space.captions.digests[space.captions_of(codes)]
        store.append("t", "both", images, captions, np.random.default_rng(2).standard_normal(len(codes)).astype(np.float32))


def measure(folder: Path, arguments: argparse.Namespace) -> None:
    """Plan, and print what it took; the corpus is there before the clock starts."""
    space = space_of(arguments)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    wall, cpu = time.perf_counter(), time.process_time()
    wanted, requested = wanted_pairs(read_parts(InputFolder(folder / "candidates", "candidates"), space, DIRECTIONS), space)
    read = time.perf_counter() - wall
    known = ScoreStore(str(folder / "scores")).known("t", "both", space.images.digests, space.captions.digests)
    plan = make_plan(wanted, requested, known.codes, space)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"| {plan.requested:,} | {plan.duplicate:,} | {plan.stored:,} | {len(plan.todo):,} "
        f"| {wall:.1f} s ({read:.1f} s reading lists), {cpu:.1f} s CPU | {peak:.2f} GB ({before:.2f} before) |"
    )


def main() -> None:
    """Prepare in this process, measure in another one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=25_000)
    parser.add_argument("--captions-each", type=int, default=5)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--stored", type=float, default=0.5)
    parser.add_argument("--measure", type=Path)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        space = space_of(arguments)
        write_candidates(folder / "candidates", arguments, space)
        fill_store(folder, arguments, space)
        print("| requested | duplicate | stored | to do | time | peak memory |\n|---|---|---|---|---|---|", flush=True)
        subprocess.run([sys.executable, "-m", "tests.benchmarks.scoring_plan", *sys.argv[1:], "--measure", name], check=True)


if __name__ == "__main__":
    main()
