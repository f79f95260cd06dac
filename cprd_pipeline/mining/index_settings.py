"""Settings of the group `index`: which FAISS index finds the candidates."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cprd_pipeline.settings import NonNegativeInt, PositiveInt, Settings

# FAISS counts with 32 bits here.
_Int32 = Annotated[int, Field(gt=0, lt=2**31)]


class IndexSettings(Settings):
    """The index, and where it lives; null is chosen from the number of items and the width of their vectors.

    Args:
        kind: `exact` finds all there is; `ivf_flat`, `ivf_pq` and `hnsw` are faster from about a million items on.
        nlist: Cells of an IVF index; null is 4 times the square root of the items.
        nprobe: Cells that a query looks into; null is a 32nd of them, at least 8.
        train_sample: Vectors from which an IVF index learns its cells; null is 64 a cell.
        pq_m: Bytes of a vector in `ivf_pq`, a divisor of the width; null is about a quarter of the width, at most 64. GPUs can
            only some (see `gpus.PQ_SIZES`, from which null chooses): with another one the CPU searches.
        refine: Items fetched per wanted item and then ranked by their true similarity; null is 8 for `ivf_pq`, otherwise 1.
            GPUs fetch no more than 2048 for it.
        hnsw_m: Neighbours of a vector in `hnsw`.
        ef_construction: Vectors looked at to place one in `hnsw`.
        ef_search: Vectors looked at by a query in `hnsw`, at least as many as are fetched; null is 256.
        float16: Half the memory: on GPUs for `exact` (same result), everywhere for `ivf_flat` and `hnsw`; lookup tables on
            GPUs for `ivf_pq`, where above 48 bytes of a vector they always are.
        gpus: `all` that FAISS can use, the index cut into as many shards, or the first `one`; a device `cuda:N` is that one
            alone. There is no `hnsw` on GPUs.
        recall_sample: Queries whose exact candidates an approximate index is compared with; 0 compares none.
        seed: Of the training sample and of what training draws.
    """

    kind: Literal["exact", "ivf_flat", "ivf_pq", "hnsw"] = "exact"
    nlist: PositiveInt | None = None
    nprobe: PositiveInt | None = None
    train_sample: PositiveInt | None = None
    pq_m: PositiveInt | None = None
    refine: PositiveInt | None = None
    hnsw_m: Annotated[int, Field(ge=2, le=512)] = 32
    ef_construction: _Int32 = 80
    ef_search: _Int32 | None = None
    float16: bool = False
    gpus: Literal["all", "one"] = "all"
    recall_sample: NonNegativeInt = 1000
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _check(self) -> "IndexSettings":
        if self.nlist is not None and self.nprobe is not None and self.nprobe > self.nlist:
            raise ValueError(f"nprobe is {self.nprobe} where there are {self.nlist} cells (nlist)")
        if self.nlist is not None and self.train_sample is not None and self.train_sample < self.nlist:
            raise ValueError(f"train_sample is {self.train_sample}, fewer than the {self.nlist} cells to learn (nlist)")
        return self
