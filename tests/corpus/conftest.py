"""Small photographs-and-JSON data sets, and settings that stay inside the test's folder."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cprd_pipeline.corpus.settings import PrepareSettings


def picture(seed: int, form: str = "PNG", size: tuple[int, int] = (20, 12), **options: Any) -> bytes:
    """A file with random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


class Dataset:
    """A Karpathy data set: entries to be spoilt by a test, and `save`."""

    def __init__(self, folder: Path, images: int = 6, captions: int = 2) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir(parents=True)
        self.entries: list[dict[str, Any]] = []
        for number in range(images):
            name = f"{number}.png"
            (self.images / name).write_bytes(picture(number))
            sentences = [
                {"raw": f"picture {number} text {c}", "sentid": number * captions + c, "imgid": number, "tokens": []}
                for c in range(captions)
            ]
            split = ("train", "train", "val")[number % 3]
            self.entries.append({"filename": name, "imgid": number, "split": split, "sentences": sentences, "sentids": []})

    @property
    def annotations(self) -> Path:
        """The JSON file."""
        return self.folder / "dataset.json"

    def save(self, **settings: Any) -> PrepareSettings:
        """Write the JSON; settings for it."""
        self.annotations.write_text(json.dumps({"images": self.entries, "dataset": "made"}))
        return self.settings(**settings)

    def settings(self, **settings: Any) -> PrepareSettings:
        """Settings for the file as it was saved last."""
        group = {"paths": self.annotations, "images": self.images} | settings.pop("files", {})
        places = {"output": self.folder / "corpus", "report": self.folder / "prepare.json"}
        return PrepareSettings.model_validate({"source": "karpathy", "files": group} | places | settings)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Six pictures with two captions each; pictures 2 and 5 are val."""
    return Dataset(tmp_path / "data")


@pytest.fixture
def scene_settings(tmp_path: Path) -> Callable[..., PrepareSettings]:
    """A function that makes settings of a small demo world; keywords replace keys of the group `scenes`."""

    def make(name: str = "corpus", **scenes: Any) -> PrepareSettings:
        splits = {
            "train": {"images": 12, "captions_each": 2},
            "val": {"images": 8, "captions_each": 3, "relevance": True},
        }
        values = {"scenes": {"splits": splits} | scenes, "output": tmp_path / name, "report": tmp_path / f"{name}.json"}
        return PrepareSettings.model_validate(values)

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs, where there is one."""
    if "CPRD_TEST_DATA" not in os.environ:
        pytest.skip("CPRD_TEST_DATA names no folder of real data")
    return Path(os.environ["CPRD_TEST_DATA"])


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
