"""A tiny encoder that the whole room shares."""

from pathlib import Path

import pytest

from tests.tiny_encoders import tiny_clip


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP folder."""
    return tiny_clip(tmp_path_factory.mktemp("encoders") / "clip")
