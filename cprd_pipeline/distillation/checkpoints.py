"""The state of a training run on disk: written aside, synced, renamed, the last few kept."""

from pathlib import Path
from typing import Any

import torch

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.atomic import write_file


class Checkpoints:
    """Checkpoints of one run, named by step.

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
        write_file(self._path(step), lambda path: torch.save(state, path))
        for old in self._all()[: -self.keep]:
            old.unlink()

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest step and its state; None before the first.

        Raises:
            StoreError: The file cannot be read.
        """
        paths = self._all()
        if not paths:
            return None
        try:
            state = torch.load(paths[-1], map_location="cpu", weights_only=True)
        except Exception as error:
            raise StoreError(
                f"{paths[-1]}: not a checkpoint that can be read ({type(error).__name__})",
                do="delete that file; the run then goes on from the one before",
            ) from error
        return int(paths[-1].stem.removeprefix("step-")), state

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))
