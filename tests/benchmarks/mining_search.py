"""CPU seconds of exact search against the bare FAISS searches it is built on.

Run: `OMP_NUM_THREADS=1 python tests/benchmarks/mining_search.py`
"""

import time

import faiss
import numpy as np

from cprd_pipeline.mining.search import ExactSearch, Excluded

ITEMS, QUERIES, WIDTH, K, REPEATS = 25_000, 5_000, 256, 64, 3


def unit(count: int, seed: int) -> np.ndarray:
    """Random float32 vectors of length one, [count, WIDTH]."""
    vectors = np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def one_positive(queries: int, items: int) -> Excluded:
    """Five captions an image, one image a caption, as in COCO."""
    if queries < items:
        each = items // queries
        return Excluded(np.arange(queries + 1) * each, np.arange(items))
    return Excluded(np.arange(queries + 1), np.arange(queries) // (queries // items))


def bare(left: np.ndarray, right: np.ndarray) -> None:
    """What FAISS alone takes for both directions."""
    for queries, items in ((left, right), (right, left)):
        index = faiss.IndexFlatIP(WIDTH)
        index.add(items)
        index.search(queries, K)


def exact(left: np.ndarray, right: np.ndarray) -> None:
    """What reproducible results take."""
    for queries, items in ((left, right), (right, left)):
        ExactSearch(items).top(queries, K, one_positive(len(queries), len(items)))


def best(run: object, *arguments: np.ndarray) -> float:
    """Least CPU seconds of the repeats; wall-clock time would measure the neighbours of a shared machine."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        run(*arguments)
        seconds.append(time.process_time() - start)
    return min(seconds)


if __name__ == "__main__":
    faiss.omp_set_num_threads(1)
    captions, images = unit(ITEMS, 0), unit(QUERIES, 1)
    plain, ours = best(bare, captions, images), best(exact, captions, images)
    print(f"bare searches {plain:.2f} s, exact {ours:.2f} s, ratio {ours / plain:.2f}")
