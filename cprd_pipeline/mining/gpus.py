"""FAISS's GPUs: which of them search, and the indexes on them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cprd_pipeline.errors import MachineError
from cprd_pipeline.mining.faiss_loader import load_faiss
from cprd_pipeline.mining.index_settings import IndexSettings
from cprd_pipeline.mining.rescoring import Positions, Vectors
from cprd_pipeline.models.device import CPU
from cprd_pipeline.progress import announce

GPU_MAX_ITEMS = 2048
"""FAISS selects no more items, and probes no more lists, than this on a GPU."""
PQ_SIZES = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
"""Bytes of a vector in the `ivf_pq` indexes that FAISS has for GPUs."""
# A look-up table of float32 for more bytes does not fit into the 48 KB of shared memory that a GPU gives.
_LARGEST_FLOAT32_PQ = 48
_TO_HOLD = "set index.float16=true, index.gpus=all, a lower index_block (exact) or a lower index.pq_m (ivf_pq), or device=cpu"
_TO_SEARCH = "set a lower query_block, a lower index_block (exact) or index.float16=true, or device=cpu"


def count_gpus() -> int:
    """GPUs that FAISS can use; where there are none, its GPU functions give empty indexes or abort the process."""
    return int(load_faiss().get_num_gpus())


def choose_gpus(device: str, index: IndexSettings) -> tuple[int, ...]:
    """The GPUs to search on, numbered as CUDA does; none where the CPU searches.

    Args:
        device: `cpu`, `cuda:N` for that one, or `auto` and `cuda` for all that FAISS can use.
        index: The settings. What FAISS has for no GPU stays on the CPU, as `hnsw` does, and a line on stderr says so.
    """
    there = range(count_gpus())
    kind, _, number = device.partition(":")
    if kind == CPU or not there or index.kind == "hnsw":
        return ()
    if index.kind == "ivf_pq" and index.pq_m not in (None, *PQ_SIZES):
        sizes = ", ".join(map(str, PQ_SIZES))
        announce(f"index.pq_m is {index.pq_m}: the CPU searches, since FAISS has ivf_pq on GPUs only with one of {sizes}")
        return ()
    if number:
        return tuple(gpu for gpu in there if gpu == int(number))
    return tuple(there[:1] if index.gpus == "one" else there)


def gpus_title(numbers: Sequence[int]) -> str:
    """GPUs for people: `GPU 1`, `2 GPUs (0, 1)`; `cpu` where there are none."""
    if len(numbers) > 1:
        return f"{len(numbers)} GPUs ({', '.join(map(str, numbers))})"
    return f"GPU {numbers[0]}" if numbers else CPU


def place(numbers: Sequence[int], left_to_cpu: int) -> dict[str, Any]:
    """Where a search runs, as JSON.

    Args:
        numbers: Of the GPUs.
        left_to_cpu: Times that a query was left to the CPU, because it asked for more than a GPU can give.
    """
    return {"device": "gpu" if numbers else CPU, "gpus": len(numbers), "gpu_ids": list(numbers), "left_to_cpu": left_to_cpu}


class Gpus:
    """Some GPUs. FAISS's scratch memory on them, of gigabytes, is taken once for all indexes that come there.

    Args:
        numbers: Of the GPUs, at least one; all of them must be there.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._faiss: Any = load_faiss()
        self._numbers = tuple(numbers)
        self._resources = [self._faiss.StandardGpuResources() for _ in numbers]

    def hold_flat(self, vectors: Vectors, *, float16: bool) -> Any:
        """A flat inner-product index on the GPUs, cut in as many shards.

        Args:
            vectors: float32 [N, D].
            float16: Whether they are kept in float16 there.

        Raises:
            MachineError: They do not fit.
        """
        with self._asked(f"put {len(vectors)} vectors of width {vectors.shape[1]}", _TO_HOLD):
            # Filled on the GPUs: a filled index to copy would be a second copy of the vectors in main memory.
            index = self._copy(self._faiss.IndexFlatIP(vectors.shape[1]), float16)
            index.add(vectors)
        return index

    def hold_ivf(self, index: Any, *, float16: bool) -> Any:
        """A copy of an IVF index on the GPUs, cut in as many shards.

        Args:
            index: FAISS's; an `ivf_pq` has one of `PQ_SIZES`.
            float16: Whether the look-up tables of `ivf_pq` are kept in float16 also where float32 would fit.

        Raises:
            MachineError: It does not fit.
        """
        large = isinstance(index, self._faiss.IndexIVFPQ) and index.pq.M > _LARGEST_FLOAT32_PQ
        with self._asked(f"put {index.ntotal} vectors of width {index.d}", _TO_HOLD):
            return self._copy(index, float16 or large)

    def search(self, index: Any, queries: Vectors, count: int, **options: Any) -> tuple[Vectors, Positions]:
        """What an index on the GPUs finds.

        Args:
            index: From here.
            queries: float32 [Q, D].
            count: Items to find, at most `GPU_MAX_ITEMS`.
            options: Of the index' own `search`.

        Returns:
            Similarities and positions, [Q, F].

        Raises:
            MachineError: There is no room to search in.
        """
        with self._asked(f"search {count} items for each of {len(queries)} queries", _TO_SEARCH):
            found: tuple[Vectors, Positions] = index.search(queries, count, **options)
        return found

    def _copy(self, index: Any, float16: bool) -> Any:
        options = self._faiss.GpuMultipleClonerOptions()
        options.shard = True
        options.useFloat16 = float16
        return self._faiss.index_cpu_to_gpu_multiple_py(self._resources, index, co=options, gpus=self._numbers)

    @contextmanager
    def _asked(self, what: str, do: str) -> Iterator[None]:
        """Turns FAISS's refusal of what it is asked for into one line."""
        try:
            yield
        except RuntimeError as error:
            # The reason stands behind the C++ function that it comes from; of several GPUs each has a line.
            reason = str(error).strip().splitlines()[-1].rpartition("Error: ")[2]
            raise MachineError(f"FAISS cannot {what} on {gpus_title(self._numbers)}: {reason}", do=do) from error
