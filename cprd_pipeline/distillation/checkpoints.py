"""The state of a training run on disk: written aside, synced, renamed, the last few kept."""

import errno
import shutil
from pathlib import Path
from typing import Any

import torch

from cprd_pipeline.errors import StoreError, first_line
from cprd_pipeline.store.atomic import write_file

# A disk with fewer bytes left than this is full.
_FULL_BELOW = 1 << 20


class Checkpoints:
    """Checkpoints of one run, named by step, and apart from them the best weights so far.

    Best weights are written before the checkpoint that knows of them, so a kill may leave some from steps that the resumed
    run has yet to do; it drops them and writes them again.

    Args:
        folder: Where they lie; outside every DVC output.
        keep: How many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` steps, then drop the oldest beyond `keep`.

        Args:
            step: Number of finished steps.
            state: Nested dictionaries and lists of tensors and plain numbers, nothing that needs pickle to load.
        """
        write_file(self._path(step), lambda path: _write(path, state))
        for old in self._all()[: -self.keep]:
            old.unlink()
        # Each checkpoint that is kept finds the best weights of its own time.
        oldest = _step_of(self._all()[0])
        for outdone in [path for path in self._all_best() if _step_of(path) <= oldest][:-1]:
            outdone.unlink()

    def save_best(self, step: int, weights: dict[str, Any]) -> None:
        """Write the weights after `step` steps, the best so far.

        Args:
            step: Number of finished steps.
            weights: A model's state dictionary.
        """
        write_file(self._best_path(step), lambda path: _write(path, weights))

    def best(self, step: int) -> dict[str, Any]:
        """The best weights, which those after `step` steps were.

        Raises:
            StoreError: The file cannot be read.
        """
        return _load(self._best_path(step), "remove the folder that it lies in; the training then begins anew")

    def forget_best_after(self, step: int) -> None:
        """Drop best weights from steps that have yet to be done."""
        for path in self._all_best():
            if _step_of(path) > step:
                path.unlink()

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest step and its state; None before the first.

        Raises:
            StoreError: The file cannot be read.
        """
        paths = self._all()
        if not paths:
            return None
        state = _load(paths[-1], "delete that file; the run then goes on from the one before")
        return _step_of(paths[-1]), state

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))

    def _best_path(self, step: int) -> Path:
        return self.folder / f"best-{step:09d}.pt"

    def _all_best(self) -> list[Path]:
        return sorted(self.folder.glob("best-*.pt"))


def _step_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        torch.save(content, path)
    except RuntimeError as error:
        # Torch's own writer names no cause.
        full = shutil.disk_usage(path.parent).free < _FULL_BELOW
        raise OSError(errno.ENOSPC if full else errno.EIO, f"torch cannot write it ({first_line(error)})") from error


def _load(path: Path, do: str) -> dict[str, Any]:
    try:
        # Mapped: a bank that lies in a file because memory is short must not come into memory here.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise StoreError(f"{path}: not a checkpoint that can be read ({type(error).__name__})", do=do) from error
    return state
