"""Seconds and memory of the rankings in training: reading them, one batch's look-up, the captions' table, batches of neighbours.

Run: `OMP_NUM_THREADS=1 python -m tests.benchmarks.reading_rankings --images 200000 --captions-each 4 --k 64`

A corpus and rankings of both directions are written as the stages write them (ids as strings, parts of 8,192 queries; candidates
lie near the query's own place, so that both directions share pairs). A process of its own reads them and prints each step's time
and the peak memory up to then, beyond what the corpus' tables took.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.batches import PairSampler
from cprd_pipeline.distillation.knowledge import TeacherKnowledge, open_rankings
from cprd_pipeline.distillation.loop_settings import Neighbours
from cprd_pipeline.distillation.neighbour_graph import neighbour_graph
from cprd_pipeline.distillation.neighbours import choose_groups
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import CAPTIONS, IMAGES, POSITIVES, RANKINGS

PART, BATCH = 8192, 1024
T = TypeVar("T")


def ids(prefix: str, count: int) -> pa.StringArray:
    """Ids of one side."""
    return pa.array([f"{prefix}{row:09d}" for row in range(count)], pa.string())


def write_corpus(folder: Path, images: int, captions: int) -> Corpus:
    """Random digests; no files behind them."""
    draws = np.random.default_rng(0)
    image_digests, digests = (
        pa.array([digest.tobytes() for digest in draws.integers(0, 256, (count, 16), dtype=np.uint8)], pa.binary(16))
        for count in (images, captions)
    )
    names, train = ids("i", images), pa.array(["train"] * captions)
    size = pa.array(np.full(images, 48), pa.int32())
    writer = OutputWriter(folder, "corpus", {"image_root": "."}, {})
    columns = [names, names, pa.nulls(images, pa.binary()), image_digests, size, size, train[:images]]
    writer.write_table("images.parquet", pa.table(columns, schema=IMAGES))
    columns = [ids("c", captions), ids("c", captions), digests, train]
    writer.write_table("captions.parquet", pa.table(columns, schema=CAPTIONS))
    owner = names.take(pa.array(np.arange(captions) * images // captions))
    writer.write_table("positives.parquet", pa.table([owner, ids("c", captions)], schema=POSITIVES))
    writer.finish()
    return Corpus(folder)


def lists(values: pa.Array, each: int) -> pa.ListArray:
    """Lists of equal length."""
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, each), pa.int32()), values)


def write_rankings(folder: Path, corpus: Corpus, k: int) -> int:
    """K candidates and one positive of each query; the number of rows."""
    draws = np.random.default_rng(1)
    writer = OutputWriter(folder, "rankings", {"split": "train"}, {"corpus": corpus.digest, "teacher": "t"})
    sides = {"i2t": (corpus.images.ids, corpus.captions.ids), "t2i": (corpus.captions.ids, corpus.images.ids)}
    for direction, (queries, items) in sides.items():
        query_ids, item_ids, ratio = pa.array(queries), pa.array(items), len(items) / len(queries)
        for number, start in enumerate(range(0, len(queries), PART)):
            rows = np.arange(start, min(start + PART, len(queries)))
            near = (rows[:, None] * ratio).astype(np.int64) + draws.integers(-2 * k, 2 * k, (len(rows), k))
            scores = pa.array(-np.sort(-draws.standard_normal((len(rows), k)).astype(np.float32), axis=1).ravel())
            own, zeros = item_ids.take(pa.array((rows * ratio).astype(np.int64))), pa.array(np.zeros(len(rows), np.float32))
            columns = [
                query_ids[start : start + len(rows)],
                pa.array([direction] * len(rows)),
                lists(item_ids.take(pa.array((near % len(items)).ravel())), k),
                lists(scores, k),
                lists(scores, k),
                lists(pa.array(np.zeros(len(rows) * k, dtype=np.bool_)), k),
                pa.array(np.ones(len(rows)), pa.int32()),
                scores[::k],
                *(lists(column, 1) for column in (own, zeros, zeros)),
            ]
            writer.write_table(f"{direction}-{number:05d}.parquet", pa.table(columns, schema=RANKINGS))
    writer.finish()
    return len(corpus.images) + len(corpus.captions)


def resident_gb(key: str) -> float:
    """Memory of this process, now (VmRSS) or at its peak (VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 2**20


def measure(folder: Path) -> None:
    """Read and use the rankings, and print what it took; the corpus is there before the clock starts."""
    corpus = Corpus(folder / "corpus")
    split, before = corpus.split("train"), resident_gb("VmRSS")
    print(f"{before:.2f} GB before, of it the libraries and the tables of the corpus", flush=True)

    def timed(what: str, run: Callable[[], T]) -> T:
        wall, cpu = time.perf_counter(), time.process_time()
        result = run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        beyond = [resident_gb(key) - before for key in ("VmHWM", "VmRSS")]
        print(f"| {what} | {wall:.3f} s | {cpu:.3f} s | {beyond[0]:.2f} GB | {beyond[1]:.2f} GB |", flush=True)
        return result

    print("| step | time | CPU | peak so far, beyond the corpus | held, beyond the corpus |\n|---|---|---|---|---|")
    rankings = open_rankings([folder / "rankings"])
    timed("compare checksums", rankings[0].verify)
    knowledge = timed("read the rankings", lambda: TeacherKnowledge.load(rankings, corpus))
    sampler = PairSampler(split, BATCH, 0)
    rows = timed("plan a random epoch", lambda: sampler.batch(0))
    batches = [sampler.batch(step) for step in range(20)]
    timed(f"look up {BATCH} x {BATCH} pairs", lambda: knowledge.among(rows))
    timed("the same for 20 other batches", lambda: [knowledge.among(rows) for rows in batches])
    timed("graph of neighbours", lambda: neighbour_graph(knowledge, split))
    chosen = timed("graph and group size", lambda: choose_groups(knowledge, split, BATCH, Neighbours(known_share=0.05), 0))
    grouped = PairSampler(split, BATCH, 1, arrange=chosen.arrange)
    timed("plan an epoch of neighbours", lambda: grouped.batch(0))
    table = timed("table of the captions", lambda: knowledge.t2i)
    print(f"{knowledge.pairs:,} pairs, {table.pairs:,} of captions; groups of {chosen.group_size}: {chosen.known_share:.3f} known")


def main() -> None:
    """Prepare in this process, measure in another one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--captions-each", type=int, default=4)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--measure", type=Path)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = write_corpus(folder / "corpus", arguments.images, arguments.images * arguments.captions_each)
        print(f"{write_rankings(folder / 'rankings', corpus, arguments.k):,} rows of rankings", flush=True)
        subprocess.run([sys.executable, "-m", "tests.benchmarks.reading_rankings", "--measure", str(folder)], check=True)


if __name__ == "__main__":
    main()
