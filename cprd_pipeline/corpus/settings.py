"""Settings of the stage `prepare`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from cprd_pipeline.settings import NonNegativeInt, PositiveInt, Settings, Share


class SceneSplit(Settings):
    """One split of the demo world.

    Args:
        images: Pictures.
        captions_each: Captions of each picture.
        relevance: Keep the true relevance of every picture and caption too, four bytes a pair.
    """

    images: PositiveInt
    captions_each: PositiveInt = 2
    relevance: bool = False


def _demo_splits() -> dict[str, SceneSplit]:
    return {
        "train": SceneSplit(images=600, captions_each=2),
        "val": SceneSplit(images=500, captions_each=3, relevance=True),
        "test": SceneSplit(images=500, captions_each=3, relevance=True),
    }


SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


class ScenesSettings(Settings):
    """The generated demo world.

    Args:
        seed: Another seed is another world; the splits of one seed are independent of each other.
        splits: Each split's size.
    """

    seed: NonNegativeInt = 0
    splits: dict[SplitName, SceneSplit] = Field(default_factory=_demo_splits, min_length=1)


class KarpathySettings(Settings):
    """Karpathy's split JSON (Flickr8k, Flickr30k, COCO) with its image files, which stay where they are.

    Args:
        annotations: The JSON file.
        images: Folder of the image files; for COCO the one that holds train2014/ and val2014/.
        restval_as_train: Count COCO's split `restval` as `train`, as most papers do.
    """

    annotations: Path
    images: Path
    restval_as_train: bool = True


class PrepareSettings(Settings):
    """Every knob of `prepare`; stages/prepare.yaml explains each with its default.

    Args:
        source: Where images and captions come from; the group of the same name says the rest.
        scenes: For the source `scenes`.
        karpathy: For the source `karpathy`.
        max_images: At most so many images of each split, the first of the file; null takes all. Files only.
        bad_images: What to do with images that are missing or do not decode: stop, or leave them out, count and list them;
            a share, such as 0.01, leaves them out but stops above it.
        workers: Processes that read and decode; 0 decodes in the stage's own.
        output: Corpus folder.
        report: Where the stage's report goes.
    """

    source: Literal["scenes", "karpathy"] = "scenes"
    scenes: ScenesSettings = ScenesSettings()
    karpathy: KarpathySettings | None = None
    max_images: PositiveInt | None = None
    bad_images: Literal["error", "skip"] | Share = "error"
    workers: NonNegativeInt = 0
    output: Path = Path("data/corpus")
    report: Path = Path("data/reports/prepare.json")

    @field_validator("bad_images", mode="before")
    @classmethod
    def _check_bad_images(cls, value: object) -> object:
        # By hand: pydantic would complain once for each alternative.
        share = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
        if value not in ("error", "skip") and not share:
            raise ValueError(f"{value!r} is neither error, nor skip, nor a share from 0 to 1")
        return value

    @property
    def files(self) -> KarpathySettings | None:
        """The group of the source, when that is made of files."""
        return self.karpathy if self.source == "karpathy" else None

    @property
    def most_bad_images(self) -> float:
        """Largest share of bad images that does not stop the stage."""
        return {"error": 0.0, "skip": 1.0}[self.bad_images] if isinstance(self.bad_images, str) else self.bad_images

    @model_validator(mode="after")
    def _check(self) -> "PrepareSettings":
        if self.source == "karpathy" and self.files is None:
            raise ValueError("source is karpathy, but the group karpathy is missing; add its annotations and images")
        if self.source == "scenes" and self.max_images is not None:
            raise ValueError("max_images is for files; the size of generated splits is in scenes.splits")
        return self
