"""What every source format gives: images, captions, and who describes whom."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ImageRecord:
    """One picture: either a path relative to the image root or the file's bytes."""

    image_id: str
    split: str
    path: str | None = None
    content: bytes | None = None


@dataclass(frozen=True)
class CaptionRecord:
    """One caption."""

    caption_id: str
    split: str
    text: str


@dataclass
class Source:
    """A whole source in memory, pictures left where they are.

    Args:
        image_root: Folder that image paths are relative to, as the user gave it.
        digest: Digest of the annotations, or of the generator's settings.
        images: In the source's order.
        captions: In the source's order.
        positives: (image id, caption id).
        relevance: Per split, float32 [images, captions] in the order of the records; generated worlds only.
    """

    image_root: str
    digest: str
    images: list[ImageRecord] = field(default_factory=list)
    captions: list[CaptionRecord] = field(default_factory=list)
    positives: list[tuple[str, str]] = field(default_factory=list)
    relevance: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
