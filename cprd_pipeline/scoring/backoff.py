"""A teacher that is asked for less at a time when the accelerator's memory runs out."""

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from cprd_pipeline.errors import MachineError, ModelError
from cprd_pipeline.models.cross_encoder import CrossEncoder

P = ParamSpec("P")
T = TypeVar("T")


class BudgetedTeacher:
    """Scores one image against any number of captions, within a budget of tokens a call.

    Args:
        teacher: The cross-encoder.
        image_batch: Images encoded together.
        token_budget: Caption tokens scored together; a longer caption goes alone.
    """

    def __init__(self, teacher: CrossEncoder, image_batch: int, token_budget: int) -> None:
        self.teacher = teacher
        self.image_batch = image_batch
        self.token_budget = token_budget

    def encode_images(self, images: Sequence[Image.Image]) -> list[Any]:
        """Encoded images, in the order given.

        Raises:
            MachineError: A single image does not fit into the device's memory.
            ModelError: The adapter gave another number of values than images.
        """
        encoded: list[Any] = []
        while len(encoded) < len(images):
            batch = images[len(encoded) : len(encoded) + self.image_batch]
            done = _unless_out_of_memory(self.teacher.encode_images, batch)
            if done is None:
                self.image_batch = _halved(len(batch), "an image")
                continue
            _check_count(self.teacher, "encode_images", len(done), len(batch))
            encoded.extend(done)
        return encoded

    def score(self, image: Any, texts: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Raw scores of one encoded image with encoded captions, float32 [N].

        Raises:
            MachineError: A single caption does not fit into the device's memory.
            ModelError: The adapter gave another number of scores than captions.
        """
        lengths = np.array([self.teacher.text_tokens(text) for text in texts])
        # Captions of like length together: adapters that pad waste little then.
        order = np.argsort(lengths, kind="stable")
        scores = np.empty(len(texts), dtype=np.float32)
        start = 0
        while start < len(order):
            # Ascending lengths: the last caption that the budget takes is the longest of the call.
            taken = max(1, int(np.searchsorted(np.cumsum(lengths[order[start:]]), self.token_budget, side="right")))
            rows = order[start : start + taken]
            done = _unless_out_of_memory(self.teacher.score, image, [texts[row] for row in rows])
            if done is None:
                self.token_budget = _halved(int(lengths[rows].sum()) if taken > 1 else 1, "one image with one caption")
                continue
            _check_count(self.teacher, "score", len(done), len(rows))
            scores[rows] = done.detach().to("cpu", torch.float32).numpy()
            start += taken
        return scores


def _unless_out_of_memory(method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """What the method returns; None when the accelerator's memory did not suffice."""
    try:
        return method(*args, **kwargs)
    except torch.OutOfMemoryError:
        pass
    # Outside of the handler: there the exception's traceback still holds the tensors.
    torch.cuda.empty_cache()
    return None


def _halved(used: int, least: str) -> int:
    if used <= 1:
        raise MachineError(
            f"out of memory: {least} does not fit into the device's memory",
            do="use a larger device, set device to cpu, or set teacher.dtype to bfloat16 (another teacher: its own scores)",
        )
    return used // 2


def _check_count(teacher: CrossEncoder, method: str, found: int, expected: int) -> None:
    if found != expected:
        raise ModelError(
            f"{type(teacher).__name__}.{method} gave {found} values", expected=f"{expected}, one for each that it was given"
        )
