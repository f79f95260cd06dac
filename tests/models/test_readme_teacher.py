"""The README's own teacher is a teacher."""

import re
from pathlib import Path

import pytest
import torch

from cprd_pipeline.models.blip import BlipTeacher
from cprd_pipeline.models.conformance import CAPTIONS, noise
from tests.pipeline.tiny_models import tiny_blip_teacher

README = Path(__file__).parents[2] / "README.md"


def test_the_readmes_teacher_keeps_its_promises_and_scores_as_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both code blocks run as they stand, on a folder of that name, and the scores equal the packed ones."""
    tiny_blip_teacher(tmp_path / "my" / "folder", CAPTIONS)
    monkeypatch.chdir(tmp_path)
    section = README.read_text(encoding="utf-8").split("### An own teacher")[1].split("### ")[0]
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    device = torch.device("cpu")
    plain, packed = (kind.load(Path("my/folder"), device, torch.float32) for kind in (names["PlainBlip"], BlipTeacher))
    scores = [
        torch.stack([teacher.score(image, teacher.encode_texts(CAPTIONS)) for image in teacher.encode_images(pictures)])
        for teacher in (plain, packed)
        for pictures in [[teacher.preprocess(picture) for picture in noise()]]
    ]
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=5e-6)
