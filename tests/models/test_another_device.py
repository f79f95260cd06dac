"""Teachers that are not on the CPU: no tensor of the CPU meets one of theirs, and scores are those of the CPU."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from cprd_pipeline.models.cross_encoder import CrossEncoder
from tests.another_device import ELSEWHERE, another_device, move_away
from tests.models import test_blip, test_bridgetower, test_flava, test_vilt

FAMILIES: list[tuple[ModuleType, dict[str, Any]]] = [
    (test_blip, {}),
    (test_blip, {"score": "match_logit+itc", "first_token": "enc"}),
    (test_flava, {}),
    (test_vilt, {}),
    (test_bridgetower, {}),
]
CAPTIONS = ["the red house", "a small cat runs beside the tree", "man runs", "dog"]


def scores_of(teacher: CrossEncoder) -> torch.Tensor:
    """Of three pictures with some captions each, in one call."""
    pictures = test_blip.pictures(3)
    images = teacher.encode_images([teacher.preprocess(picture) for picture in pictures])
    texts = teacher.encode_texts(CAPTIONS)
    return teacher.score_groups([(images[0], texts), (images[1], texts[:2]), (images[2], texts[1:])])


@pytest.mark.parametrize(("family", "options"), FAMILIES, ids=[f"{module.__name__} {options}" for module, options in FAMILIES])
def test_no_score_mixes_devices(family: ModuleType, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures and captions come from the CPU, scores go back there."""
    wanted, random_model = scores_of(family.teacher(0, **options)), family.random_model

    def moved(*arguments: Any) -> nn.Module:
        model: nn.Module = random_model(*arguments)
        move_away(model)
        return model

    monkeypatch.setattr(family, "random_model", moved)
    monkeypatch.setattr(family, "CPU", ELSEWHERE)
    with another_device():
        found = scores_of(family.teacher(0, **options)).to("cpu")
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=5e-6)
