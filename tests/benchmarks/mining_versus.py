"""CPU seconds and peak memory of mining against sentence-transformers' `mine_hard_negatives(use_faiss=True)`.

The same given embeddings, the same k, both directions, every run in a process of its own, the two in turn. Both end with
each query's ids and similarities in memory; neither writes a file. Its fastest output format is taken (`labeled-list`).

Run: `pip install datasets`, then `OMP_NUM_THREADS=1 python tests/benchmarks/mining_versus.py`
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ITEMS, QUERIES, WIDTH, K, REPEATS = 25_000, 5_000, 256, 64, 3


def unit(count: int, seed: int) -> np.ndarray:
    """Random float32 vectors of length one, [count, WIDTH]."""
    vectors = np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def peak_mb() -> float:
    """Most memory that this process has had, in MB; getrusage would count the process that started it too (Linux)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def ours(folder: Path) -> tuple[float, float, float]:
    """Seconds, and peak memory before and after."""
    import faiss
    import pyarrow as pa

    from cprd_pipeline.mining.search import ExactSearch, Excluded

    faiss.omp_set_num_threads(1)
    sides = {side: np.load(folder / f"{side}.npy", mmap_mode="r") for side in ("captions", "images")}
    each = ITEMS // QUERIES
    positives = {
        "images": Excluded(np.arange(QUERIES + 1) * each, np.arange(ITEMS)),
        "captions": Excluded(np.arange(ITEMS + 1), np.arange(ITEMS) // each),
    }
    before, start = peak_mb(), time.process_time()
    for asking, asked in (("images", "captions"), ("captions", "images")):
        ids = pa.array([f"{asked} {number}" for number in range(len(sides[asked]))])
        search = ExactSearch(sides[asked])
        top = search.top(sides[asking], K, positives[asking])
        owners, items = positives[asking].of(np.arange(len(sides[asking])))
        similarities = search.similarities(sides[asking], owners, items)
        assert (top.counts == K).all()
        assert len(ids.take(pa.array(top.positions.ravel()))) == K * len(sides[asking])
        assert len(similarities) == ITEMS
    return time.process_time() - start, before, peak_mb()


def theirs(folder: Path) -> tuple[float, float, float]:
    """Seconds, and peak memory before and after."""
    import faiss
    import torch
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives, pairwise_dot_score

    class Given:
        """A model that has embedded everything already; text is `<side> <row>`."""

        device = torch.device("cpu")
        similarity_pairwise = staticmethod(pairwise_dot_score)

        def encode_document(self, texts: list[str], **_: object) -> np.ndarray:
            return sides[texts[0].split()[0]][[int(text.split()[1]) for text in texts]]

        encode_query = encode_document

        def get_embedding_dimension(self) -> int:
            return WIDTH

    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    sides = {side: np.load(folder / f"{side}.npy") for side in ("captions", "images")}
    each = ITEMS // QUERIES
    names = {"captions": [f"captions {n}" for n in range(ITEMS)], "images": [f"images {n // each}" for n in range(ITEMS)]}
    before, start = peak_mb(), time.process_time()
    for asking, asked in (("images", "captions"), ("captions", "images")):
        mined = mine_hard_negatives(
            Dataset.from_dict({"query": names[asking], "positive": names[asked]}),
            Given(),
            num_negatives=K,
            use_faiss=True,
            output_format="labeled-list",
            output_scores=True,
            verbose=False,
        )
        assert len(mined) == ITEMS
    return time.process_time() - start, before, peak_mb()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps({"ours": ours, "theirs": theirs}[sys.argv[1]](Path(sys.argv[2]))))
        sys.exit()
    with tempfile.TemporaryDirectory() as name:
        np.save(f"{name}/captions.npy", unit(ITEMS, 0))
        np.save(f"{name}/images.npy", unit(QUERIES, 1))
        for _ in range(REPEATS):
            for who in ("theirs", "ours"):
                output = subprocess.check_output([sys.executable, __file__, who, name], stderr=subprocess.DEVNULL, text=True)
                seconds, before, peak = json.loads(output.splitlines()[-1])
                print(f"{who:7s} {seconds:6.2f} s, peak {peak:5.0f} MB, of which {peak - before:4.0f} MB while mining", flush=True)
