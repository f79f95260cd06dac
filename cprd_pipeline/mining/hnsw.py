"""HNSW indexes: a graph of neighbours along which a query walks to its nearest."""

from dataclasses import asdict, dataclass
from typing import Any

from cprd_pipeline.mining.faiss_loader import load_faiss
from cprd_pipeline.mining.index_settings import IndexSettings
from cprd_pipeline.mining.rescoring import Positions, Vectors

_EF_SEARCH = 256


@dataclass(frozen=True)
class HnswRecipe:
    """What an HNSW index is built with.

    Args:
        hnsw_m: Neighbours of a vector.
        ef_construction: Vectors looked at to place one.
        float16: Whether vectors are kept in float16.
    """

    hnsw_m: int
    ef_construction: int
    float16: bool

    @classmethod
    def choose(cls, settings: IndexSettings) -> "HnswRecipe":
        """The recipe of the settings."""
        return cls(settings.hnsw_m, settings.ef_construction, settings.float16)

    def as_json(self) -> dict[str, Any]:
        """The fields."""
        return {"kind": "hnsw", **asdict(self)}

    @property
    def add_threads(self) -> int | None:
        """One: threads that link side by side may make another graph each time, and so other candidates."""
        return 1

    def train(self, vectors: Vectors) -> Any:
        """An empty index for vectors of this width, float32 [N, D]; there is nothing to learn."""
        faiss = load_faiss()
        width, metric = vectors.shape[1], faiss.METRIC_INNER_PRODUCT
        if self.float16:
            index = faiss.IndexHNSWSQ(width, faiss.ScalarQuantizer.QT_fp16, self.hnsw_m, metric)
            index.train(vectors[:1])
        else:
            index = faiss.IndexHNSWFlat(width, self.hnsw_m, metric)
        index.hnsw.efConstruction = self.ef_construction
        return index


class HnswFinder:
    """Searches in a filled HNSW index; always on the CPU, since FAISS has none for GPUs.

    Args:
        index: FAISS's.
        settings: For `ef_search`.
    """

    gpus: tuple[int, ...] = ()
    left_to_cpu = 0

    def __init__(self, index: Any, settings: IndexSettings) -> None:
        self._faiss: Any = load_faiss()
        self._index = index
        self._ef_search = settings.ef_search or _EF_SEARCH
        self.parameters = {"ef_search": self._ef_search}

    def is_exhausted(self, growth: int) -> bool:
        """Whether a query looks at as many vectors as there are; what the graph does not lead to is not found even so."""
        return self._ef_search * growth >= int(self._index.ntotal)

    def find(self, queries: Vectors, fetch: int, growth: int) -> Positions:
        """The best items by the index' own similarity.

        Args:
            queries: float32 [Q, D].
            fetch: Items to find, at most.
            growth: Factor by which more vectors than the setting says are looked at.

        Returns:
            int64 [Q, F]; -1 where the walk found no further item.
        """
        looked_at = min(int(self._index.ntotal), max(fetch, self._ef_search * growth))
        positions: Positions
        _, positions = self._index.search(queries, fetch, params=self._faiss.SearchParametersHNSW(efSearch=looked_at))
        return positions
