"""What every source format yields: images, captions, and who was annotated for whom."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from cprd_pipeline.corpus.roots import Root

ONLY_SPLIT = "train"
"""The split of everything, where a source names none."""


class StoredImage(ABC):
    """An image file that lies inside a larger file: a tar shard, a Parquet or Arrow table. Small, and pickles for workers."""

    __slots__ = ()

    @abstractmethod
    def read(self) -> bytes:
        """The image file's bytes.

        Raises:
            CorpusError: They cannot be read.
        """


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image.

    Args:
        image_id: Unique among the images.
        split: Its split.
        path: Where its file lies under the image root; None when it is stored in another way.
        stored: The file's bytes, or where they lie inside a larger file; None when the path is given.
    """

    image_id: str
    split: str
    path: str | None = None
    stored: bytes | StoredImage | None = None

    @property
    def content(self) -> bytes | None:
        """The file's bytes, read when they are asked for; None when the path is given."""
        return self.stored if self.stored is None or isinstance(self.stored, bytes) else self.stored.read()


@dataclass(frozen=True, slots=True)
class CaptionRecord:
    """One caption.

    Args:
        caption_id: Unique among the captions.
        text: As the annotators wrote it.
        image_ids: The images that it was written for, mostly one; none for a caption of an unpaired pool.
        split: Of a caption without images; the others share their images' split.
    """

    caption_id: str
    text: str
    image_ids: tuple[str, ...]
    split: str = ONLY_SPLIT


@dataclass(frozen=True)
class Records:
    """A source's content, in an order that does not change from run to run.

    Args:
        images: The images.
        captions: The captions; every image that they name is among the images.
        image_root: What image paths are relative to.
        splits_given: Whether the source itself says which split an item is of.
        notes: What the reader had to interpret, a line each, for the report.
    """

    images: list[ImageRecord]
    captions: list[CaptionRecord]
    image_root: Root
    splits_given: bool = True
    notes: list[str] = field(default_factory=list)
