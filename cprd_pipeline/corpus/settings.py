"""Settings of the stage `prepare`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from cprd_pipeline.settings import NonNegativeInt, PositiveInt, Settings


class SceneSplit(Settings):
    """Size of one split of the demo world."""

    images: PositiveInt
    captions_each: PositiveInt = 2
    relevance: bool = False


class ScenesSettings(Settings):
    """The generated demo world.

    Args:
        seed: Of pictures and captions.
        splits: Name of each split to its size; `relevance` also writes the true relevance of all its pairs.
    """

    seed: NonNegativeInt = 0
    splits: dict[str, SceneSplit] = Field(
        default_factory=lambda: {
            "train": SceneSplit(images=600, captions_each=2),
            "val": SceneSplit(images=500, captions_each=3, relevance=True),
            "test": SceneSplit(images=500, captions_each=3, relevance=True),
        },
        min_length=1,
    )


class KarpathySettings(Settings):
    """Karpathy's split JSON of COCO, Flickr8k or Flickr30k.

    Args:
        annotations: The JSON file.
        images: Folder that its file names are relative to.
        restval_as_train: Count COCO's `restval` as training data; otherwise it stays a split of its own.
    """

    annotations: Path
    images: Path
    restval_as_train: bool = True


class PrepareSettings(Settings):
    """Stage `prepare`; stages/prepare.yaml explains each setting."""

    source: Literal["scenes", "karpathy"] = "scenes"
    scenes: ScenesSettings = ScenesSettings()
    karpathy: KarpathySettings | None = None
    max_images: PositiveInt | None = None
    bad_images: Literal["error", "skip"] = "error"
    output: Path = Path("data/corpus")
    report: Path = Path("data/reports/prepare.json")
    workers: NonNegativeInt = 0

    @model_validator(mode="after")
    def _source_has_its_group(self) -> "PrepareSettings":
        if self.source == "karpathy" and self.karpathy is None:
            raise ValueError("source karpathy needs the group karpathy with annotations and images")
        return self
