"""IVF indexes: vectors in cells around learned centres, of which a query looks into the nearest few.

Shape suffixes: Q queries, F fetched items, D width, P probed cells, N all vectors.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cprd_pipeline.errors import SettingsError
from cprd_pipeline.mining.faiss_loader import load_faiss
from cprd_pipeline.mining.gpus import GPU_MAX_ITEMS, PQ_SIZES, Gpus
from cprd_pipeline.mining.index_settings import IndexSettings
from cprd_pipeline.mining.rescoring import Excluded, Positions, Vectors
from cprd_pipeline.mining.search import ExactSearch

# FAISS asks for 39 vectors a centre at least, and finds little more in above 256.
_LEAST_A_CELL = 39
_SAMPLED_A_CELL = 64
_PQ_CENTRES = 256
_PQ_LARGEST = 64
# Split by queries, the only one of FAISS's ways in which a query's result does not depend on the threads.
_PARALLEL_QUERIES = 3


@dataclass(frozen=True)
class IvfRecipe:
    """What an IVF index is trained and filled with.

    Args:
        kind: `ivf_flat` or `ivf_pq`.
        nlist: Cells.
        train_sample: Vectors to learn from.
        pq_m: Bytes a vector; null keeps it whole.
        float16: Whether a whole vector is kept in float16.
        seed: Of the sample and of what training draws.
    """

    kind: str
    nlist: int
    train_sample: int
    pq_m: int | None
    float16: bool
    seed: int

    @classmethod
    def choose(cls, settings: IndexSettings, count: int, width: int) -> "IvfRecipe":
        """The recipe of the settings, nulls filled in.

        Args:
            settings: Of kind `ivf_flat` or `ivf_pq`.
            count: Vectors.
            width: D.

        Raises:
            SettingsError: A setting does not fit the number of vectors or their width.
        """
        quantised = settings.kind == "ivf_pq"
        nlist, sample = cells_and_sample(settings, count)
        pq_m = _choose_pq_m(settings.pq_m, width) if quantised else None
        return cls(settings.kind, nlist, sample, pq_m, settings.float16 and not quantised, settings.seed)

    def as_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    @property
    def add_threads(self) -> int | None:
        """Threads to add vectors with; null is as many as FAISS has."""
        return None

    def train(self, vectors: Vectors) -> Any:
        """An index that has learned its cells and holds nothing yet; float32 [N, D], of which a spread sample is read."""
        faiss = load_faiss()
        width, metric = vectors.shape[1], faiss.METRIC_INNER_PRODUCT
        centres = faiss.IndexFlatIP(width)
        if self.pq_m is not None:
            index = faiss.IndexIVFPQ(centres, width, self.nlist, self.pq_m, 8, metric)
            index.pq.cp.seed = self.seed
        elif self.float16:
            index = faiss.IndexIVFScalarQuantizer(centres, width, self.nlist, faiss.ScalarQuantizer.QT_fp16, metric)
        else:
            index = faiss.IndexIVFFlat(centres, width, self.nlist, metric)
        index.cp.seed = self.seed
        # The sample is the user's choice; FAISS would cut it again.
        index.cp.max_points_per_centroid = max(256, -(-self.train_sample // self.nlist))
        index.train(vectors[_spread_sample(len(vectors), self.train_sample, self.seed)])
        return index


class IvfFinder:
    """Searches in a filled IVF index.

    Args:
        index: FAISS's.
        settings: For `nprobe`, and for GPUs' float16.
        gpus: GPUs to search on; none is the CPU, which also takes what is above a GPU's limits.
    """

    def __init__(self, index: Any, settings: IndexSettings, gpus: Sequence[int]) -> None:
        self._faiss: Any = load_faiss()
        self._index = index
        self._index.parallel_mode = _PARALLEL_QUERIES
        self._nprobe = min(index.nlist, settings.nprobe or max(8, -(-index.nlist // 32)))
        self._centres = ExactSearch(index.quantizer.reconstruct_n(0, index.nlist))
        self._gpus = Gpus(gpus) if gpus else None
        self._on_gpus: Any = self._gpus.hold_ivf(index, float16=settings.float16) if self._gpus else None
        self.gpus = tuple(gpus)
        self.left_to_cpu = 0
        self.parameters = {"nprobe": self._nprobe}

    def is_exhausted(self, growth: int) -> bool:
        """Whether every cell is looked into at this growth."""
        return bool(self._nprobe * growth >= self._index.nlist)

    def find(self, queries: Vectors, fetch: int, growth: int) -> Positions:
        """The best items by the index' own similarity.

        Args:
            queries: float32 [Q, D].
            fetch: Items to find, at most.
            growth: Factor by which more cells than the setting says are looked into.

        Returns:
            int64 [Q, F]; -1 where there is no further item in the cells.
        """
        probes = min(self._index.nlist, self._nprobe * growth)
        if self._gpus is not None and max(fetch, probes) <= GPU_MAX_ITEMS:
            return self._gpus.search(self._on_gpus, queries, fetch, params=self._faiss.SearchParametersIVF(nprobe=probes))[1]
        self.left_to_cpu += len(queries) if self._gpus is not None else 0
        # FAISS's own choice of cells rounds differently in a batch of another size.
        none = Excluded(np.zeros(len(queries) + 1, dtype=np.int64), np.empty(0, dtype=np.int64))
        cells = self._centres.top(queries, probes, none)
        self._index.nprobe = probes
        positions: Positions
        _, positions = self._index.search_preassigned(queries, fetch, cells.positions, cells.similarities)
        return positions


def cells_and_sample(settings: IndexSettings, count: int) -> tuple[int, int]:
    """How many cells there are, and how many vectors they are learnt from.

    Args:
        settings: Of kind `ivf_flat` or `ivf_pq`.
        count: Vectors.

    Raises:
        SettingsError: A setting does not fit the number of vectors.
    """
    nlist = settings.nlist or max(1, min(round(4 * math.sqrt(count)), count // _LEAST_A_CELL))
    fewest = max(nlist, _PQ_CENTRES if settings.kind == "ivf_pq" else 1)
    if count < fewest:
        raise SettingsError(
            f"index.kind is {settings.kind} with {nlist} cells, and there are {count} items",
            expected=f"at least {fewest} items",
            do="set index.kind=exact, which is fast for so few",
        )
    sample = min(count, settings.train_sample or max(_SAMPLED_A_CELL * nlist, _LEAST_A_CELL * _PQ_CENTRES))
    if sample < fewest:
        raise SettingsError(f"index.train_sample is {sample}", expected=f"at least {fewest} for {settings.kind}")
    return nlist, sample


def _choose_pq_m(wanted: int | None, width: int) -> int:
    if wanted is None:
        # Also where no GPU is: an index file serves any machine.
        return max(size for size in PQ_SIZES if size <= max(1, min(_PQ_LARGEST, width // 4)) and width % size == 0)
    if width % wanted:
        raise SettingsError(f"index.pq_m is {wanted}", expected=f"a divisor of {width}, the width of the vectors")
    return wanted


def _spread_sample(count: int, size: int, seed: int) -> Positions:
    """One position drawn from each of `size` equal stretches, ascending: no memory of `count`, and a file read in order."""
    edges = np.arange(size + 1) * count // size
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])
