"""A teacher that is asked for less at a time when the accelerator's memory runs out."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from cprd_pipeline.errors import MachineError, ModelError
from cprd_pipeline.models.cross_encoder import CrossEncoder, Group

P = ParamSpec("P")
T = TypeVar("T")

Scores = npt.NDArray[np.float32]

# What cuBLAS says where nothing is left for its own needs: no error of its own in torch.
_NO_HANDLE = "CUBLAS_STATUS_ALLOC_FAILED"


@dataclass
class _Left:
    """What is left of one group.

    Args:
        group: Its place among the groups.
        rows: Its captions, shorter ones first, so that adapters that pad waste little; int64.
        lengths: Tokens of each; int64.
    """

    group: int
    rows: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    def take(self, count: int) -> "_Left":
        """Split off the first captions."""
        taken = _Left(self.group, self.rows[:count], self.lengths[:count])
        self.rows, self.lengths = self.rows[count:], self.lengths[count:]
        return taken


class BudgetedTeacher:
    """Scores images against captions, within a budget of tokens a call.

    Args:
        teacher: The cross-encoder.
        image_batch: Images encoded together.
        token_budget: Tokens scored together, as the teacher counts them, over several images where they have few captions;
            a longer caption goes alone.
    """

    def __init__(self, teacher: CrossEncoder, image_batch: int, token_budget: int) -> None:
        self.teacher = teacher
        self.image_batch = image_batch
        self.token_budget = token_budget

    def encode_images(self, images: Sequence[Any]) -> list[Any]:
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

    def encode_texts(self, texts: Sequence[str]) -> list[Any]:
        """Encoded captions, in the order given.

        Raises:
            MachineError: They do not fit into the device's memory beside those of the part that it holds already.
        """
        done = _unless_out_of_memory(self.teacher.encode_texts, texts)
        if done is None:
            raise MachineError(
                "out of memory: the encoded captions of a part do not fit into the device's memory", do="lower part_pairs"
            )
        return list(done)

    def score(self, groups: Sequence[Group]) -> list[Scores]:
        """Raw scores, float32 [captions of the group] for each group.

        Args:
            groups: Encoded images with their encoded captions.

        Raises:
            MachineError: A single caption does not fit into the device's memory.
            ModelError: The adapter gave another number of scores than captions.
        """
        scores = [np.empty(len(texts), dtype=np.float32) for _, texts in groups]
        left = deque(self._by_length(number, texts) for number, (_, texts) in enumerate(groups))
        while left:
            call = self._next_call(left)
            asked = [(groups[piece.group][0], [groups[piece.group][1][row] for row in piece.rows]) for piece in call]
            done = _unless_out_of_memory(self.teacher.score_groups, asked)
            if done is None:
                left.extendleft(reversed(call))
                pairs = sum(len(piece.rows) for piece in call)
                used = sum(int(piece.lengths.sum()) for piece in call)
                self.token_budget = _halved(used if pairs > 1 else 1, "one image with one caption")
                continue
            _check_count(self.teacher, "score_groups", len(done), sum(len(piece.rows) for piece in call))
            values = done.detach().to("cpu", torch.float32).numpy()
            for piece in call:
                scores[piece.group][piece.rows], values = values[: len(piece.rows)], values[len(piece.rows) :]
        return scores

    def _by_length(self, number: int, texts: Sequence[Any]) -> _Left:
        lengths = np.array([self.teacher.pair_tokens(text) for text in texts], dtype=np.int64)
        order = np.argsort(lengths, kind="stable")
        return _Left(number, order, lengths[order])

    def _next_call(self, left: deque[_Left]) -> list[_Left]:
        """Whole groups as far as they fit together; a group that alone exceeds the budget gives its first captions."""
        call: list[_Left] = []
        free = self.token_budget
        while left:
            first = left[0]
            fits = int(np.searchsorted(np.cumsum(first.lengths), free, side="right"))
            if call and fits < len(first.rows):
                break
            # Ascending lengths: the last caption that the budget takes is the longest of the call.
            call.append(first.take(max(1, fits)))
            if len(first.rows):
                break
            left.popleft()
            free -= int(call[-1].lengths.sum())
        return call


def _unless_out_of_memory(method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """What the method returns; None when the accelerator's memory did not suffice."""
    try:
        return method(*args, **kwargs)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and _NO_HANDLE not in str(error):
            raise
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
