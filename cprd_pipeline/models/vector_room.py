"""Room for the vectors of a corpus: in memory, or, where there are very many, in a file that the system pages in and out."""

import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cprd_pipeline.store.atomic import machine_error, make_folder

IN_MEMORY_BYTES = 1 << 30
"""The most that is kept in memory."""


def room_for(rows: int, width: int, folder: Path) -> npt.NDArray[np.float32]:
    """An array to be filled, float32 [rows, width].

    Past `IN_MEMORY_BYTES` it lies in a file without a name, which is gone when the array is, or the process, however it ends.

    Args:
        rows: Number of vectors.
        width: Numbers of each.
        folder: Where the file goes, on a disk with enough space.

    Raises:
        MachineError: The disk is full or the folder cannot be written.
    """
    size = rows * width * np.dtype(np.float32).itemsize
    if size <= IN_MEMORY_BYTES:
        return np.empty((rows, width), dtype=np.float32)
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            # All of it now: on a full disk, writing to memory that no block stands behind would end the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.asarray(np.memmap(file, dtype=np.float32, mode="r+", shape=(rows, width)))
    except OSError as error:
        raise machine_error(error, folder) from error
