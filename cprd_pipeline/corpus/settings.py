"""Settings of the stage `prepare`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cprd_pipeline.settings import NonNegativeInt, PositiveInt, ReportPath, Settings, Share, StageSettings


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


UNPAIRED_SPLIT = "unpaired"
"""Of the demo world: the split that unpaired pictures and captions are."""


class ScenesSettings(Settings):
    """The generated demo world.

    Args:
        seed: Another seed is another world; the splits of one seed are independent of each other.
        splits: Each split's size.
        unpaired_images: Pictures without captions, in the split `unpaired`.
        unpaired_captions: Captions whose picture is not there, in the same split.
    """

    seed: NonNegativeInt = 0
    splits: dict[SplitName, SceneSplit] = Field(default_factory=_demo_splits, min_length=1)
    unpaired_images: NonNegativeInt = 0
    unpaired_captions: NonNegativeInt = 0

    @model_validator(mode="after")
    def _check_unpaired(self) -> "ScenesSettings":
        if (self.unpaired_images or self.unpaired_captions) and UNPAIRED_SPLIT in self.splits:
            raise ValueError(f"unpaired items are the split {UNPAIRED_SPLIT}, which splits has too; give that one another name")
        return self

    def shaping(self) -> dict[str, Any]:
        """What shapes the world; without unpaired items it is the one that it was before there were any."""
        unpaired = {"unpaired_images", "unpaired_captions"}
        return {key: value for key, value in self.as_json().items() if value or key not in unpaired}


Source = Literal[
    "scenes",
    "auto",
    "karpathy",
    "coco_captions",
    "flickr30k_results",
    "flickr_tokens",
    "csv",
    "jsonl",
    "parquet",
    "webdataset",
    "datasets",
    "folder",
]


class ColumnSettings(Settings):
    """What the columns of a table, or the keys of JSON lines and of webdataset's JSON members, are called.

    Null looks for the usual names (`image`, `file_name`, `filepath`, ...; `caption`, `captions`, `text`, ...; `split`).
    A name that is given must be there.

    Args:
        image: File name, or the file's bytes.
        caption: Text, or a list of texts.
        split: Split name.
        image_id: Identity of the image; without one it is the file name.
        caption_id: Identity of the caption; the same one in several rows is one caption of several images.
    """

    image: str | None = None
    caption: str | None = None
    split: str | None = None
    image_id: str | None = None
    caption_id: str | None = None


class FilesSettings(Settings):
    """Annotations and image files, which stay where they are: one group for every format.

    Args:
        paths: A file, a folder, a pattern such as `shards/*.tar`, or a list of these; or a mapping from split to any of them.
        images: Folder that file names are relative to, or a URI such as s3://bucket/images; null for the folder of the first path.
        columns: Names of columns, for formats that have them.
        delimiter: Of a table in a text file; null finds out.
        split_lists: Which images are of which split: a file with one name a line for each split, or the word `rest` for one split
            that takes all others. Without `rest` the others are left out and counted. Goes before what the files say.
        rename_splits: New names for splits; Karpathy's `restval` counts as `train`, as in most papers.
        unpaired: Images without captions, captions without images: stop, or keep them (pools for mining and scoring).
    """

    paths: tuple[Path, ...] | dict[SplitName, tuple[Path, ...]]
    images: str | None = None
    columns: ColumnSettings = ColumnSettings()
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    split_lists: dict[SplitName, Path] = Field(default_factory=dict)
    rename_splits: dict[str, SplitName] = Field(default_factory=lambda: {"restval": "train"})
    unpaired: Literal["error", "keep"] = "error"

    @field_validator("paths", mode="before")
    @classmethod
    def _check_paths(cls, value: object) -> object:
        # By hand: pydantic would complain once for each alternative.
        listed = {split: _path_list(paths) for split, paths in value.items()} if isinstance(value, Mapping) else _path_list(value)
        if not listed:
            raise ValueError("names no file; expected a file or folder, a list of them, or a mapping from split to them")
        return listed

    @field_validator("images", mode="before")
    @classmethod
    def _check_images(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value

    @field_validator("split_lists")
    @classmethod
    def _check_lists(cls, value: dict[str, Path]) -> dict[str, Path]:
        if [str(path) for path in value.values()].count(REST) > 1:
            raise ValueError(f"more than one split takes the {REST}")
        return value


REST = "rest"
"""In `split_lists`: all images that no list names."""


def _path_list(value: object) -> tuple[Path, ...]:
    found = value if isinstance(value, list | tuple) else [value]
    paths = [Path(path) for path in found if isinstance(path, str | Path) and str(path).strip()]
    if not paths or len(paths) != len(found):
        raise ValueError(f"{value!r} is neither a path nor a list of paths")
    return tuple(paths)


class HoldoutSettings(Settings):
    """Splits drawn by content from the images of `train`, for sources that bring none.

    Equal pictures, and pictures that share a caption, stay in one split, and a corpus that grows keeps every item where it was.

    Args:
        shares: Split name to its expected share of the images; the rest stays `train`. Empty draws nothing.
        seed: Another seed is another draw.
    """

    shares: dict[SplitName, Share] = Field(default_factory=dict)
    seed: NonNegativeInt = 0

    @field_validator("shares")
    @classmethod
    def _check(cls, value: dict[str, float]) -> dict[str, float]:
        if sum(value.values()) >= 1:
            raise ValueError(f"the shares sum to {sum(value.values()):.3g}, which leaves nothing for train")
        if "train" in value:
            raise ValueError("train is what the other shares leave; name the others only")
        return value

    def shaping(self) -> dict[str, Any]:
        """What shapes the splits: without shares the seed draws nothing, so that it is the default's, whatever it is."""
        return (self if self.shares else HoldoutSettings()).as_json()


class CaptionSettings(Settings):
    """What is done to caption texts; by default nothing at all, so that they stay byte for byte as written.

    Args:
        normalise: A Unicode normal form, or null. NFC joins letters and accents that were typed apart, but also replaces CJK
            compatibility ideographs and reorders Hebrew and Arabic marks: so it is not the default.
        lower_case: Fold to lower case.
        strip_punctuation: Replace every character that Unicode calls punctuation by a space.
    """

    normalise: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = None
    lower_case: bool = False
    strip_punctuation: bool = False


OnBad = Literal["error", "skip"] | Share


class PrepareSettings(StageSettings):
    """Every knob of `prepare`; stages/prepare.yaml explains each with its default.

    Args:
        source: Where images and captions come from: the generated `scenes`, or a format of files; `auto` recognises the format.
        scenes: For the source `scenes`.
        files: For every other source.
        holdout: Splits for files that bring none.
        captions: What is done to texts.
        max_images: At most so many images of each split, the first of the file; null takes all. Files only.
        bad_images: What to do with images that are missing or do not decode: stop, or leave them out, count and list them;
            a share, such as 0.01, leaves them out but stops above it.
        bad_captions: The same for captions that are empty or hold control characters.
        pack: Copy the original files into Parquet shards of the corpus folder, for network disks; otherwise they are read where
            they lie. Files inside of larger files (tar shards, tables) are always packed.
        workers: Processes that read and decode; 0 decodes in the stage's own.
        output: Corpus folder.
        report: Where the stage's report goes.
    """

    source: Source = "scenes"
    scenes: ScenesSettings = ScenesSettings()
    files: FilesSettings | None = None
    holdout: HoldoutSettings = HoldoutSettings()
    captions: CaptionSettings = CaptionSettings()
    max_images: PositiveInt | None = None
    bad_images: OnBad = "error"
    bad_captions: OnBad = "error"
    pack: bool = False
    workers: NonNegativeInt = 0
    output: Path = Path("data/corpus")
    report: ReportPath = Path("data/reports/prepare.json")

    @field_validator("bad_images", "bad_captions", mode="before")
    @classmethod
    def _check_bad(cls, value: object) -> object:
        # By hand: pydantic would complain once for each alternative.
        share = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
        if value not in ("error", "skip") and not share:
            raise ValueError(f"{value!r} is neither error, nor skip, nor a share from 0 to 1")
        return value

    @property
    def most_bad_images(self) -> float:
        """Largest share of bad images that does not stop the stage."""
        return _share(self.bad_images)

    @property
    def most_bad_captions(self) -> float:
        """Largest share of bad captions that does not stop the stage."""
        return _share(self.bad_captions)

    @model_validator(mode="before")
    @classmethod
    def _accept_karpathy(cls, values: Any) -> Any:
        """The group `karpathy`, which was the only one before there were others, as the group `files`."""
        if not isinstance(values, dict) or "karpathy" not in values or values.get("files") is not None:
            return values
        group = values["karpathy"]
        if not isinstance(group, dict):
            return {key: value for key, value in values.items() if key != "karpathy" or value is not None}
        names = {"annotations": "paths", "restval_as_train": "rename_splits"}
        files = {names.get(key, key): value for key, value in group.items()}
        if "rename_splits" in files:
            files["rename_splits"] = {"restval": "train"} if files["rename_splits"] else {}
        return {key: value for key, value in values.items() if key != "karpathy"} | {"files": files}

    @model_validator(mode="after")
    def _check(self) -> "PrepareSettings":
        if self.source == "scenes":
            if self.max_images is not None:
                raise ValueError("max_images is for files; the size of generated splits is in scenes.splits")
            if self.files is not None:
                raise ValueError("source is scenes, the generated world, but files names others; set source: auto")
            if self.holdout.shares:
                raise ValueError("holdout is for files; the generated splits are in scenes.splits")
            for name in ("captions", "bad_images", "bad_captions"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is for files; what is generated is good, and its texts stay as they are")
            return self
        if self.files is None:
            raise ValueError(f"source is {self.source}, but the group files is missing; add its paths and images")
        return self


def _share(rule: str | float) -> float:
    return {"error": 0.0, "skip": 1.0}[rule] if isinstance(rule, str) else rule
