"""The training log, and its copy for TensorBoard."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cprd_pipeline.distillation.processes import Processes
from cprd_pipeline.errors import MissingDependencyError
from cprd_pipeline.store.atomic import make_folder

LogRow = dict[str, int | float]
"""Of the training log: `step` (an integer), losses, learning rate, scale; `eval_*`, `gradient_cosine`, `bank_*` where measured."""


class TensorBoard:
    """Writes rows of the log as scalars; without a folder it does nothing.

    Args:
        writer: Of torch.utils.tensorboard, or None.
        done: Steps whose rows an interrupted run has written.
    """

    def __init__(self, writer: Any, done: int) -> None:
        self._writer = writer
        self._written = done

    @classmethod
    @contextmanager
    def open(cls, folder: Path | None, done: int, processes: Processes) -> Iterator["TensorBoard"]:
        """A board for the length of the block.

        Args:
            folder: Where event files go; None for none.
            done: Steps that a checkpoint holds; what event files hold of later ones is purged.
            processes: Only the leading one writes.

        Raises:
            MissingDependencyError: tensorboard is not installed.
        """
        if folder is None or not processes.leads:
            yield cls(None, done)
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                "tensorboard is not installed", do="pip install 'cprd-pipeline[tensorboard]', or set tensorboard to null"
            ) from error
        make_folder(folder)
        with SummaryWriter(folder, purge_step=done + 1) as writer:
            yield cls(writer, done)

    def write(self, log: Sequence[LogRow]) -> None:
        """Write the rows that are new."""
        if self._writer is None:
            return
        for row in log:
            step = int(row["step"])
            if step > self._written:
                for name, value in row.items():
                    if name != "step":
                        self._writer.add_scalar(name, value, step)
        self._written = int(log[-1]["step"]) if log else self._written
        self._writer.flush()
