"""A faiss module that says it has GPUs: their indexes keep within a GPU's limits and round as one does."""

from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np


class PretendedGpus:
    """Stands in for the module; `clones` are the indexes that were moved.

    Args:
        count: GPUs to pretend.
        refuse: What moving an index fails with, if it does.
    """

    def __init__(self, count: int = 1, refuse: str = "") -> None:
        self.count = count
        self.refuse = refuse
        self.clones: list[PretendedIndex] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(faiss, name)

    GpuMultipleClonerOptions = SimpleNamespace

    def get_num_gpus(self) -> int:
        """As the function of that name."""
        return self.count

    def index_cpu_to_all_gpus(self, index: Any, co: Any, ngpu: int) -> "PretendedIndex":
        """As the function of that name; moves what FAISS has for GPUs."""
        assert 1 <= ngpu <= self.count
        assert co.shard
        if self.refuse:
            raise RuntimeError(self.refuse)
        assert isinstance(index, faiss.IndexFlat | faiss.IndexIVF)
        assert index.ntotal
        self.clones.append(PretendedIndex(index, ngpu, co.useFloat16))
        return self.clones[-1]


class PretendedIndex:
    """An index on GPUs; `asked` holds the items and probes of each search."""

    def __init__(self, index: Any, gpus: int, float16: bool) -> None:
        self.index, self.gpus, self.float16 = index, gpus, float16
        self.asked: list[tuple[int, int]] = []
        if float16 and isinstance(index, faiss.IndexFlat):
            rounded = index.reconstruct_n(0, index.ntotal).astype(np.float16).astype(np.float32)
            self.index = faiss.IndexFlatIP(index.d)
            self.index.add(rounded)

    def search(self, queries: np.ndarray, count: int, *, params: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """As the method of that name."""
        probes = params.nprobe if params else 0
        self.asked.append((count, probes))
        assert count <= 2048
        assert probes <= 2048
        if self.float16:
            queries = queries.astype(np.float16).astype(np.float32)
        return self.index.search(queries, count, params=params)
