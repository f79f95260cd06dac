"""The check for own teachers: passes what keeps the promises, names what breaks them."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.conformance import CAPTIONS, check_teacher
from cprd_pipeline.models.scene_teacher import build_scene_teacher
from cprd_pipeline.models.teacher_choice import TeacherChoice
from cprd_pipeline.models.teachers import load_teacher
from tests.pipeline.tiny_models import tiny_blip_teacher
from tests.scoring.stub import AskerMatters, StubTeacher
from tests.tiny_encoders import simple_corpus

CPU = torch.device("cpu")


def test_teachers_of_ours_keep_the_promises(tmp_path: Path) -> None:
    """BLIP from its folder, the demo's, and one whose scores depend on who asks."""
    simple_corpus(tmp_path / "corpus", 4)
    tiny_blip_teacher(tmp_path / "blip", [*CAPTIONS, *Corpus(tmp_path / "corpus").texts])
    check_teacher(load_teacher(TeacherChoice(model=str(tmp_path / "blip")), CPU), tolerance=5e-6)
    check_teacher(build_scene_teacher(CAPTIONS, 0, CPU, torch.float32), tolerance=5e-6)
    check_teacher(AskerMatters(1.0), tolerance=0.0)


def test_what_was_tried_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Silence would look as if nothing had happened."""
    check_teacher(StubTeacher(1.0))
    assert capsys.readouterr().out == (
        "StubTeacher keeps its promises: 3 pictures and 5 captions, alone, in another order and several images a call, moved a "
        "score by 0 at most (0.0001 is allowed)\n"
    )


class Shifted(StubTeacher):
    """Scores depend on the place in the call."""

    def score(self, image: bytes, texts: Sequence[str]) -> torch.Tensor:
        """The stub's, and more for later captions."""
        return super().score(image, texts) + torch.arange(len(texts))


class Blind(StubTeacher):
    """Looks at no picture."""

    def encode_images(self, images: Sequence[Image.Image]) -> list[bytes]:
        """The same for all."""
        return [b""] * len(images)


class Illiterate(StubTeacher):
    """Reads no caption."""

    def encode_texts(self, captions: Sequence[str]) -> list[str]:
        """The same for all."""
        return ["a"] * len(captions)


class Lossy(StubTeacher):
    """Loses a caption."""

    def encode_texts(self, captions: Sequence[str]) -> list[str]:
        """All but one."""
        return list(captions)[1:]


class Rough(StubTeacher):
    """Wrong number type."""

    def score(self, image: bytes, texts: Sequence[str]) -> torch.Tensor:
        """As float64."""
        return super().score(image, texts).double()


class Flaky(StubTeacher):
    """Dropout left on: the second time is another."""

    calls = 0

    def score(self, image: bytes, texts: Sequence[str]) -> torch.Tensor:
        """A little more each time."""
        Flaky.calls += 1
        return super().score(image, texts) + 1e-6 * Flaky.calls


class Holes(StubTeacher):
    """NaN."""

    def score(self, image: bytes, texts: Sequence[str]) -> torch.Tensor:
        """Nothing."""
        return super().score(image, texts) * float("nan")


class Silent(StubTeacher):
    """Says that a caption has as many tokens as it kept."""

    def text_tokens(self, text: str) -> int:
        """After cutting."""
        return min(super().text_tokens(text), self.max_text_tokens)


class Rooted(StubTeacher):
    """Its preprocessing does not pickle."""

    @property
    def preprocess(self):
        """A closure."""
        return lambda picture: picture


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (Shifted, "a score moves by .* with one caption at a time, expected at most 0.0001; mask padding"),
        (Blind, "every image gives the same scores"),
        (Illiterate, "every caption gives the same scores"),
        (Lossy, "encode_texts gave 4 values for 5 captions"),
        (Rough, r"score gave torch\.float64, expected torch\.float32"),
        (Flaky, "other scores the second time; switch off dropout"),
        (Holes, "not finite"),
        (Silent, "cuts long captions in silence; let text_tokens count"),
        (Rooted, "preprocess cannot be sent to another process"),
    ],
)
def test_a_broken_promise_is_named(teacher: type[StubTeacher], message: str) -> None:
    """One line that says what is wrong and what to do."""
    with pytest.raises(ModelError, match=f"{teacher.__name__}: .*{message}"):
        check_teacher(teacher(1.0))
