"""Moving a FAISS index to GPUs."""

from typing import Any

from cprd_pipeline.errors import MachineError

GPU_MAX_ITEMS = 2048
"""FAISS selects no more items, and probes no more lists, than this on a GPU."""


def to_gpus(faiss: Any, index: Any, gpus: int, *, float16: bool) -> Any:
    """A copy of an index on GPUs, cut in as many shards.

    Only where `get_num_gpus()` is above zero: elsewhere FAISS silently returns an empty index.

    Args:
        faiss: The module.
        index: A flat or an IVF index.
        gpus: How many; it is the first ones that are taken.
        float16: Whether vectors and lookup tables are kept in float16 there.

    Raises:
        MachineError: They do not fit, or FAISS has no such index for GPUs.
    """
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    options.useFloat16 = float16
    try:
        return faiss.index_cpu_to_all_gpus(index, co=options, ngpu=gpus)
    except RuntimeError as error:
        # FAISS puts the reason on the last line, after the C++ function it comes from.
        reason = str(error).strip().splitlines()[-1]
        raise MachineError(
            f"FAISS cannot put {index.ntotal} vectors of width {index.d} on {gpus} GPUs ({reason})",
            do="set index.float16=true, index.gpus=all, a lower index_block (exact) or a lower index.pq_m (ivf_pq), or device=cpu",
        ) from error
