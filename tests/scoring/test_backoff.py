"""A budgeted teacher: never more tokens than allowed, less when memory runs out, and a clear end."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cprd_pipeline.errors import MachineError, ModelError
from cprd_pipeline.scoring.backoff import BudgetedTeacher
from tests.scoring.stub import StubTeacher, stub_score

PICTURES = [Image.new("RGB", (2, 2), (value, 0, 0)) for value in range(7)]


class SmallMemory(StubTeacher):
    """Holds so many tokens, and so many images, at a time."""

    def __init__(self, tokens: int, images: int) -> None:
        super().__init__(1.0)
        self.tokens, self.images = tokens, images
        self.calls: list[int] = []

    def encode_images(self, images):
        """As the stub's, if they fit."""
        if len(images) > self.images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().encode_images(images)

    def score(self, image, texts):
        """As the stub's, if they fit."""
        tokens = sum(map(self.text_tokens, texts))
        if tokens > self.tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.calls.append(tokens)
        return super().score(image, texts)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=20), st.integers(1, 40), st.integers(6, 40))
@settings(max_examples=100, deadline=None)
def test_scores_are_the_same_for_every_budget_and_every_memory(lengths: list[int], budget: int, memory: int) -> None:
    """In the order of the captions; no call above the budget, but for a single longer caption."""
    texts = [" ".join([f"w{row}"] * length) for row, length in enumerate(lengths)]
    teacher = SmallMemory(memory, 3)
    [scores] = BudgetedTeacher(teacher, 2, budget).score([(b"image", texts)])
    assert scores.dtype == np.float32
    assert scores.tolist() == [np.float32(stub_score(b"image", text)) for text in texts]
    assert max(teacher.calls) <= max(budget, *lengths)


def test_captions_that_do_not_fit_are_one_line() -> None:
    """All of a part's are held at once: fewer of them help, not smaller calls."""

    class NoRoom(StubTeacher):
        def encode_texts(self, captions):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MachineError, match=r"encoded captions of a part do not fit.*lower part_pairs"):
        BudgetedTeacher(NoRoom(1.0), 2, 9).encode_texts(["a"])


@pytest.mark.parametrize(
    ("message", "halved"), [("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED when calling", True), ("shapes", False)]
)
def test_only_lack_of_memory_is_answered_with_less(message: str, *, halved: bool) -> None:
    """CuBLAS says it with a plain error; another error is none of ours."""

    class Failing(SmallMemory):
        def encode_images(self, images):
            if len(images) > 1:
                raise RuntimeError(message)
            return super().encode_images(images)

    budgeted = BudgetedTeacher(Failing(10, 2), 2, 64)
    if halved:
        assert len(budgeted.encode_images(PICTURES)) == len(PICTURES)
        assert budgeted.image_batch == 1
    else:
        with pytest.raises(RuntimeError, match="shapes"):
            budgeted.encode_images(PICTURES)


def test_a_full_device_halves_the_budget_for_good() -> None:
    """The next image does not run into it again."""
    budgeted = BudgetedTeacher(SmallMemory(10, 2), 7, 64)
    budgeted.score([(b"image", ["a b c d"] * 16)])
    assert budgeted.token_budget in range(4, 11)
    assert budgeted.encode_images(PICTURES) == [picture.tobytes() for picture in PICTURES]
    assert budgeted.image_batch == 1


def test_what_never_fits_ends_the_run() -> None:
    """One caption, or one image, that is too much for the device: a message, no endless loop."""
    with pytest.raises(MachineError, match="one image with one caption does not fit"):
        BudgetedTeacher(SmallMemory(3, 1), 1, 64).score([(b"image", ["a b", "a b c d"])])
    with pytest.raises(MachineError, match="an image does not fit"):
        BudgetedTeacher(SmallMemory(3, 0), 4, 64).encode_images(PICTURES)


def test_an_adapter_that_loses_values_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing score would shift all that follow to the wrong pair."""
    monkeypatch.setattr(StubTeacher, "score", lambda self, image, texts: torch.zeros(len(texts) - 1))
    with pytest.raises(ModelError, match=r"StubTeacher\.score_groups gave 1 values; expected 2, one for each"):
        BudgetedTeacher(StubTeacher(1.0), 1, 64).score([(b"image", ["a", "b"])])
    monkeypatch.setattr(StubTeacher, "encode_images", lambda self, images: [])
    with pytest.raises(ModelError, match=r"StubTeacher\.encode_images gave 0 values; expected 3"):
        BudgetedTeacher(StubTeacher(1.0), 3, 64).encode_images(PICTURES)
