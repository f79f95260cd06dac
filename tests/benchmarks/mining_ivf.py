"""Peak memory, recall and CPU seconds of mining 1,000,000 captions x 200,000 images at 64-d through an IVF index.

The vectors have topics within topics, and every caption lies near its image. They are memory-mapped, as the stage's are;
each direction runs in a process of its own with the default settings, its results dropped part by part as the stage
writes them.

Run: `OMP_NUM_THREADS=1 python tests/benchmarks/mining_ivf.py [ivf_flat | ivf_pq | hnsw]`
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CAPTIONS, IMAGES, WIDTH, K, SAMPLE, PART = 1_000_000, 200_000, 64, 64, 1000, 8192


def write_vectors(folder: Path) -> None:
    """captions.npy and images.npy, rows of length one."""
    rng = np.random.default_rng(0)
    broad, narrow = rng.standard_normal((200, WIDTH)), rng.standard_normal((5000, WIDTH))
    topics = rng.integers(0, 5000, IMAGES)
    images = (broad[topics % 200] + 0.8 * narrow[topics] + rng.standard_normal((IMAGES, WIDTH))).astype(np.float32)
    owners = np.arange(CAPTIONS) // (CAPTIONS // IMAGES)
    captions = images[owners] + 0.4 * rng.standard_normal((CAPTIONS, WIDTH), dtype=np.float32)
    for name, vectors in (("images", images), ("captions", captions)):
        np.save(folder / f"{name}.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def peak_mb() -> float:
    """Most memory that this process has had, in MB; getrusage would count the process that started it too (Linux)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def positives(asking: str) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and positions of what each query excludes."""
    each = CAPTIONS // IMAGES
    if asking == "images":
        return np.arange(IMAGES + 1) * each, np.arange(CAPTIONS)
    return np.arange(CAPTIONS + 1), np.arange(CAPTIONS) // each


def mine(folder: Path, asking: str, kind: str) -> dict[str, object]:
    """Search all queries of one direction, then a sample of them exactly."""
    import faiss

    from cprd_pipeline.mining.index_settings import IndexSettings
    from cprd_pipeline.mining.indexes import make_search
    from cprd_pipeline.mining.recall import recall
    from cprd_pipeline.mining.search import ExactSearch, Excluded

    faiss.omp_set_num_threads(1)
    queries = np.load(folder / f"{asking}.npy", mmap_mode="r")
    items = np.load(folder / f"{'images' if asking == 'captions' else 'captions'}.npy", mmap_mode="r")
    excluded = Excluded(*positives(asking))

    def part(rows: np.ndarray) -> tuple[np.ndarray, Excluded]:
        owners, unwanted = excluded.of(rows)
        return queries[rows], Excluded(np.searchsorted(owners, np.arange(len(rows) + 1)), unwanted)

    started = time.process_time()
    search = make_search(
        items, IndexSettings(kind=kind), identity=asking, cache=folder, query_block=1024, index_block=1 << 22, gpus=()
    )
    built = time.process_time()
    found = 0
    for start in range(0, len(queries), PART):
        vectors, own = part(np.arange(start, min(start + PART, len(queries))))
        found += int(search.top(vectors, K, own).counts.sum())
    searched = time.process_time()
    assert found == K * len(queries)
    # The sample's share of the exact search counts for memory, not for time.
    sample = np.linspace(0, len(queries) - 1, SAMPLE).astype(np.int64)
    vectors, own = part(sample)
    share = recall(search, ExactSearch(items), vectors, K, own)
    exact = time.process_time()
    ExactSearch(items).top(vectors, K, own)
    return {
        "parameters": search.describe()["parameters"],
        "index_mb": round(search.describe()["bytes"] / 2**20),
        "build_s": round(built - started, 1),
        "search_s": round(searched - built, 1),
        "exact_s_expected": round((time.process_time() - exact) * len(queries) / SAMPLE),
        "recall": round(share, 4),
        "peak_mb": round(peak_mb()),
        "embeddings_mb": round((items.nbytes + queries.nbytes) / 2**20),
    }


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(mine(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
        sys.exit()
    wanted = sys.argv[1] if len(sys.argv) > 1 else "ivf_flat"
    with tempfile.TemporaryDirectory() as name:
        write_vectors(Path(name))
        for side in ("images", "captions"):
            command = [sys.executable, __file__, name, side, wanted]
            print(side, "ask:", subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True).strip(), flush=True)
