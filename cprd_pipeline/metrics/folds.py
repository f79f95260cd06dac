"""Protocols that split a test set into folds of images, as COCO 1K does with the 5,000 of COCO 5K."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from cprd_pipeline.metrics.positives import Positives


@dataclass(frozen=True)
class Fold:
    """A retrieval problem of its own: queries choose among the fold's items only.

    Args:
        images: Image rows, ascending; int64.
        captions: Caption rows, ascending; int64.
        positives: Positives of the fold's images among its captions, both numbered within the fold.
    """

    images: Int64[np.ndarray, " I"]
    captions: Int64[np.ndarray, " C"]
    positives: Positives


@dataclass(frozen=True)
class Folds:
    """The folds of a test set, and what is in none of them.

    Args:
        folds: At least one.
        images_left_out: Images after the last whole fold.
        captions_left_out: Their captions, and captions without a positive.
    """

    folds: tuple[Fold, ...]
    images_left_out: int
    captions_left_out: int


def folds_of(positives: Positives, size: int) -> Folds:
    """Cut a test set into folds: images 0 to size - 1 with their captions, images size to 2 size - 1, and so on.

    Fold f holds the images f * size to (f + 1) * size - 1, in the order of the corpus, and the captions whose home image
    (`home_images`) is one of them. Images that do not fill a last fold are left out with their captions, and counted;
    so are captions without a positive, which belong to no image. Where equal captions of different images are
    positives of each other's images, they are so within a fold only.

    Args:
        positives: Caption rows of each image.
        size: Images of a fold, at least 1.

    Raises:
        ValueError: There are fewer images than one fold holds.
    """
    count = len(positives) // size
    if not count:
        raise ValueError(f"{len(positives)} images do not fill one fold of {size}")
    fold_of_caption = home_images(positives) // size
    made = []
    for number in range(count):
        images = np.arange(number * size, (number + 1) * size)
        captions = np.flatnonzero(fold_of_caption == number)
        made.append(Fold(images, captions, positives.part(images, captions)))
    held = sum(len(fold.captions) for fold in made)
    return Folds(tuple(made), len(positives) - count * size, positives.item_count - held)


def home_images(positives: Positives) -> Int64[np.ndarray, " C"]:
    """The one image that each caption belongs to, where folds and resampling need one.

    A caption with one positive belongs to that. Captions with the same several positives (the same text written for
    several images) are dealt out to those images in turn, so that each image keeps about as many as were written for it;
    which of the equal captions it keeps makes no difference.

    Args:
        positives: Caption rows of each image.

    Returns:
        Image row of each caption; -1 for a caption without a positive.
    """
    by_caption = positives.transposed()
    homes = np.full(len(by_caption), -1, dtype=np.int64)
    dealt: Counter[bytes] = Counter()
    for caption in by_caption.answerable:
        images = by_caption.items[by_caption.offsets[caption] : by_caption.offsets[caption + 1]]
        key = images.tobytes()
        homes[caption] = images[dealt[key] % len(images)]
        dealt[key] += 1
    return homes
