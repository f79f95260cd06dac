"""A faiss module that says it has GPUs: their indexes refuse what a GPU's refuse, and round as one does."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np

# Of FAISS 1.15: gpu/impl/IVFPQ.cu, and what a CUDA device calls sharedMemPerBlock.
_PQ_SIZES = {1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96}
_SHARED_BYTES = 48 * 1024


class PretendedGpus:
    """Stands in for the module; `clones` are the indexes that were moved, `resources` what was made for it.

    Args:
        count: GPUs to pretend.
        refuse: What a step fails with, if it does.
        at: That step: `move`, `add` or `search`.
    """

    def __init__(self, count: int = 1, refuse: str = "", at: str = "move") -> None:
        self.count = count
        self.refusals = {at: refuse} if refuse else {}
        self.clones: list[PretendedIndex] = []
        self.resources: list[object] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(faiss, name)

    GpuMultipleClonerOptions = SimpleNamespace

    def StandardGpuResources(self) -> object:  # noqa: N802
        """As the class of that name."""
        self.resources.append(object())
        return self.resources[-1]

    def get_num_gpus(self) -> int:
        """As the function of that name."""
        return self.count

    def index_cpu_to_gpu_multiple_py(self, resources: Sequence[object], index: Any, co: Any, gpus: Sequence[int]) -> Any:
        """As the function of that name; moves what FAISS has for GPUs."""
        assert len(resources) == len(gpus) == len(set(gpus)) > 0
        assert all(0 <= number < self.count for number in gpus)
        assert all(any(given is made for made in self.resources) for given in resources)
        assert co.shard
        self.answer("move")
        if isinstance(index, faiss.IndexIVFPQ):
            _check_pq(index.pq.M, co.useFloat16)
        assert isinstance(index, faiss.IndexFlat | faiss.IndexIVF)
        self.clones.append(PretendedIndex(self, index, tuple(gpus), co.useFloat16))
        return self.clones[-1]

    def answer(self, step: str) -> None:
        """Fail where it is to."""
        if step in self.refusals:
            raise RuntimeError(self.refusals[step])


def _check_pq(size: int, float16: bool) -> None:
    if size not in _PQ_SIZES:
        raise RuntimeError(f"Number of bytes per encoded vector / sub-quantizers ({size}) is not supported")
    if (needed := (2 if float16 else 4) * size * 256) > _SHARED_BYTES:
        raise RuntimeError(f"Device 0 has {_SHARED_BYTES} bytes of shared memory, while {needed} are required")


class PretendedIndex:
    """An index on GPUs; `asked` holds the items and probes of each search, `moved` the vectors that it came with."""

    def __init__(self, world: PretendedGpus, index: Any, gpus: tuple[int, ...], float16: bool) -> None:
        self.world, self.index, self.gpus, self.float16 = world, index, gpus, float16
        self.moved = index.ntotal
        self.asked: list[tuple[int, int]] = []
        if isinstance(index, faiss.IndexFlat):
            assert not self.moved
            self.shards = [faiss.IndexFlatIP(index.d) for _ in gpus]
            # FAISS's own, which several GPUs are: it takes vectors once, and numbers them from shard to shard.
            self.index = faiss.IndexShards(index.d, True, True)
            for shard in self.shards:
                self.index.add_shard(shard)

    def add(self, vectors: np.ndarray) -> None:
        """As the method of that name."""
        self.world.answer("add")
        self.index.add(self._rounded(vectors))

    def search(self, queries: np.ndarray, count: int, *, params: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """As the method of that name."""
        self.world.answer("search")
        probes = params.nprobe if params else 0
        self.asked.append((count, probes))
        if count > 2048:
            raise RuntimeError(f"GPU index only supports min/max-K selection up to 2048 (requested {count})")
        if probes > 2048:
            raise RuntimeError(f"GPU IVF index only supports nprobe selection up to 2048 (requested {probes})")
        return self.index.search(self._rounded(queries), count, params=params)

    def _rounded(self, vectors: np.ndarray) -> np.ndarray:
        return vectors.astype(np.float16).astype(np.float32) if self.float16 else vectors
