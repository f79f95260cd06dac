"""CPU seconds and memory of all retrieval metrics at the size of COCO 5K, from embeddings on disk.

Run: `OMP_NUM_THREADS=1 python tests/benchmarks/retrieval_metrics.py`
"""

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cprd_pipeline.metrics.averages import mean_figures
from cprd_pipeline.metrics.folds import folds_of, home_images
from cprd_pipeline.metrics.positives import Positives
from cprd_pipeline.metrics.ranking import rank_both_directions
from cprd_pipeline.metrics.retrieval import MeasuredQueries, measure_queries, summarise_queries
from cprd_pipeline.metrics.significance import GroupedQueries, bootstrap_means, percentile_interval, randomisation_p_values

IMAGES, CAPTIONS_EACH, WIDTH, FOLD, REPEATS, REPLICATES = 5000, 5, 512, 1000, 3, 1000
POSITIVES = Positives(
    np.arange(IMAGES + 1) * CAPTIONS_EACH, np.arange(IMAGES * CAPTIONS_EACH, dtype=np.int64), IMAGES * CAPTIONS_EACH
)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length one, float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_embeddings(folder: Path, noise: float, seed: int) -> tuple[Path, Path]:
    """Images anywhere, captions around their image at `noise` times its length."""
    random = np.random.default_rng(seed)
    images = unit(random.standard_normal((IMAGES, WIDTH)))
    around = noise * unit(random.standard_normal((IMAGES * CAPTIONS_EACH, WIDTH)))
    paths = folder / "images.npy", folder / "captions.npy"
    np.save(paths[0], images)
    np.save(paths[1], unit(np.repeat(images, CAPTIONS_EACH, axis=0) + around))
    return paths


def write_collapsed(folder: Path) -> tuple[Path, Path]:
    """Everything within a millionth of one point."""
    random = np.random.default_rng(0)
    point, paths = random.standard_normal(WIDTH), (folder / "images.npy", folder / "captions.npy")
    for path, count in zip(paths, (IMAGES, IMAGES * CAPTIONS_EACH), strict=True):
        np.save(path, unit(point + 1e-6 * random.standard_normal((count, WIDTH))))
    return paths


def measure(paths: tuple[Path, Path]) -> tuple[MeasuredQueries, ...]:
    """Per-query results and all figures of both directions."""
    images, captions = (np.load(path, mmap_mode="r") for path in paths)
    measured = tuple(measure_queries(ranked) for ranked in rank_both_directions(images, captions, POSITIVES))
    for direction in measured:
        summarise_queries(direction)
    return measured


def measure_folds(paths: tuple[Path, Path]) -> None:
    """COCO 1K: figures averaged over the folds."""
    images, captions = (np.load(path, mmap_mode="r") for path in paths)
    summaries: tuple[list[dict[str, float]], ...] = ([], [])
    for fold in folds_of(POSITIVES, FOLD).folds:
        ranked = rank_both_directions(images[fold.images], captions[fold.captions], fold.positives)
        for direction, kept in zip(ranked, summaries, strict=True):
            kept.append(summarise_queries(measure_queries(direction)))
    for kept in summaries:
        mean_figures(kept)


def group(measured: tuple[MeasuredQueries, ...]) -> list[GroupedQueries]:
    """All metrics of both directions by image."""
    homes = np.arange(IMAGES), home_images(POSITIVES)
    matrices = [np.stack(list(direction.values().values()), axis=1) for direction in measured]
    return [GroupedQueries.of(matrix, home, IMAGES) for matrix, home in zip(matrices, homes, strict=True)]


def intervals(directions: list[GroupedQueries]) -> None:
    """An interval for every metric."""
    replicates = bootstrap_means(directions, REPLICATES, np.random.default_rng(0))
    estimates = np.concatenate([direction.contributions.sum(axis=0) for direction in directions])
    for estimate, column in zip(estimates, replicates.T, strict=True):
        percentile_interval(float(estimate), column)


def flips(one: list[GroupedQueries], other: list[GroupedQueries]) -> None:
    """A p-value for every metric of i2t."""
    randomisation_p_values(one[0].contributions - other[0].contributions, 10 * REPLICATES, np.random.default_rng(0))


def best(run: Callable[[], object]) -> float:
    """Least CPU seconds of the repeats; wall-clock time would measure the neighbours of a shared machine."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


def bare(paths: tuple[Path, Path]) -> None:
    """The matrix product alone, in tiles."""
    images, captions = (np.load(path) for path in paths)
    for start in range(0, len(captions), 1024):
        images @ captions[start : start + 1024].T


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good, poor = folder / "good", folder / "poor"
        measured = {}
        for kind, noise in ((good, 8.0), (poor, 1e6)):
            kind.mkdir()
            paths = write_embeddings(kind, noise, seed=0)
            measured[kind] = measure(paths)
            recall = np.mean(measured[kind][0].rank == 1)
            print(
                f"{kind.name} model (i2t R@1 {recall:.0%}): both directions, all metrics {best(lambda p=paths: measure(p)):.2f} s"
            )
        print(f"COCO 1K, five folds {best(lambda: measure_folds(paths)):.2f} s")
        one, other = (group(measured[kind]) for kind in (good, poor))
        print(f"{REPLICATES} bootstrap replicates of all metrics {best(lambda: intervals(one)):.2f} s")
        print(f"{10 * REPLICATES} flips of the i2t metrics {best(lambda: flips(one, other)):.2f} s")
        print(f"peak of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
        print(f"bare matrix product {best(lambda: bare(paths)):.2f} s")
        collapsed = write_collapsed(folder)
        print(f"collapsed model {best(lambda: measure(collapsed)):.2f} s")


if __name__ == "__main__":
    main()
