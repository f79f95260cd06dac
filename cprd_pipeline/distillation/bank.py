"""Features of the whole corpus that stay from earlier steps, so that a query meets candidates which its batch does not hold.

Sources: He et al. 2020 (MoCo), arXiv:1911.05722, for features of a moving average; Wang et al. 2020, "Cross-Batch Memory
for Embedding Learning", arXiv:1912.06798, for features as they were computed.

Shape suffixes: I images and C captions of the corpus, N items, D width, Q queries, K candidates of each.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Float16
from torch import Tensor

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.store.atomic import machine_error, make_folder

NEVER = -1


class FeatureBank:
    """One side of the corpus: the newest features of each content, float16.

    Args:
        count: Contents, found by canonical row.
        file: Where the features lie memory-mapped when they are larger than `memory`; float16 [count, D] without a header.
        memory: Bytes.
    """

    def __init__(self, count: int, file: Path, memory: int) -> None:
        self._count = count
        self._file = file
        self._memory = memory
        self._features_ND: Float16[Tensor, "N D"] | None = None
        self._steps = np.full(count, NEVER, dtype=np.int64)

    @property
    def width(self) -> int:
        """D; 0 before the first features."""
        return 0 if self._features_ND is None else self._features_ND.shape[1]

    def held(self) -> npt.NDArray[np.bool_]:
        """Whether there are features of each content; bool [count], the caller's own."""
        held: npt.NDArray[np.bool_] = self._steps != NEVER
        return held

    def age(self, rows: Rows, step: int) -> float:
        """Mean number of steps since the features of these contents were computed; 0 of none."""
        return float((step - self._steps[rows]).mean()) if len(rows) else 0.0

    def put(self, rows: Rows, features_ND: Float[Tensor, "N D"], step: int) -> None:
        """Replace the features of some contents; of a content that occurs twice the last one stays.

        Args:
            rows: Canonical rows, int64 [N].
            features_ND: On any device.
            step: Steps done when they were computed.
        """
        if self._features_ND is None:
            self._features_ND = self._room(features_ND.shape[1])
        last = len(rows) - 1 - np.unique(rows[::-1], return_index=True)[1]
        chosen = torch.from_numpy(last)
        self._features_ND[torch.from_numpy(rows[last])] = features_ND.detach().to("cpu", torch.float16)[chosen]
        self._steps[rows] = step

    def take(self, rows: Rows) -> Float16[Tensor, "N D"]:
        """Features of some contents in float16, on the CPU; every one of them must be held."""
        if self._features_ND is None:
            return torch.zeros(0, 0, dtype=torch.float16)
        return self._features_ND[torch.from_numpy(rows)]

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the bank's own tensors, to be written at once; a copy of a mapped file would not fit."""
        kept = {"steps": torch.from_numpy(self._steps)}
        return kept | ({} if self._features_ND is None else {"features": self._features_ND})

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what a checkpoint kept."""
        self._steps[:] = state["steps"].numpy()
        if "features" in state:
            if self._features_ND is None:
                self._features_ND = self._room(state["features"].shape[1])
            self._features_ND.copy_(state["features"])

    def _room(self, width: int) -> Float16[Tensor, "N D"]:
        if self._count * width * torch.float16.itemsize <= self._memory:
            return torch.zeros(self._count, width, dtype=torch.float16)
        make_folder(self._file.parent)
        # Never emptied, as other processes on the machine may have it mapped, and all write the same: what is held, and with
        # what features after a kill, is in memory and in the checkpoint.
        self._file.touch()
        try:
            # All of it now: on a full disk, writing to memory that no block stands behind would end the process.
            with self._file.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, self._count * width * torch.float16.itemsize)
        except OSError as error:
            raise machine_error(error, self._file) from error
        return torch.from_numpy(np.memmap(self._file, np.float16, "r+", shape=(self._count, width)))
