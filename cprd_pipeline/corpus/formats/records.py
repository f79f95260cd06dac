"""What every source format yields: images, captions, and who was annotated for whom."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cprd_pipeline.errors import CorpusError


@dataclass(frozen=True)
class ImageRecord:
    """One image.

    Args:
        image_id: Unique among the images.
        split: Its split.
        path: Where its file lies under the image root; None when the content is given.
        content: The file's bytes; None when the path is given.
    """

    image_id: str
    split: str
    path: str | None = None
    content: bytes | None = None


@dataclass(frozen=True)
class CaptionRecord:
    """One caption.

    Args:
        caption_id: Unique among the captions.
        text: As the annotators wrote it.
        image_id: The image that it was written for; it shares that image's split.
    """

    caption_id: str
    text: str
    image_id: str


@dataclass(frozen=True)
class Records:
    """A source's content, in an order that does not change from run to run.

    Args:
        images: The images.
        captions: The captions, each for one of the images.
        image_root: What image paths are relative to.
    """

    images: list[ImageRecord]
    captions: list[CaptionRecord]
    image_root: Path


def check_unique(ids: Iterable[str], what: str, where: Path) -> None:
    """Refuse ids that occur twice.

    Raises:
        CorpusError: The message names the first such id.
    """
    counts = Counter(ids)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise CorpusError(
            f"{where}: {len(twice)} {what} ids occur more than once, {twice[0]!r} {counts[twice[0]]} times",
            expected="every id once",
            do="remove the repeated entries, or number them anew",
        )
