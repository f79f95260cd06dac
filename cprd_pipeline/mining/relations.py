"""What an unannotated pair of image and caption has in common with the annotated ones, which makes it a false negative.

Images and captions are contents (see `contents`), numbered by their position. Shape suffixes: N pairs, C captions, D width.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64

from cprd_pipeline.mining.search import Excluded

# Elements of the vectors that are multiplied together.
_TILE_ELEMENTS = 1 << 20


@runtime_checkable
class Relation(Protocol):
    """A property of pairs."""

    def holds(self, images: Int64[np.ndarray, " N"], captions: Int64[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Whether each pair has it."""
        ...


def text_classes(texts: list[str]) -> Int64[np.ndarray, " C"]:
    """Numbers that are equal for texts that are equal but for case and space.

    Args:
        texts: Of each caption.
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(" ".join(text.casefold().split()), len(numbers)) for text in texts], dtype=np.int64)


class SameText:
    """The caption equals one of the image's, but for case and space.

    Args:
        positives: Captions of each image.
        classes: Class of each caption's text, int64 [C].
    """

    def __init__(self, positives: Excluded, classes: Int64[np.ndarray, " C"]) -> None:
        self._classes = classes
        # Nearly all texts are the only ones of their class, and then only the annotated pair has the property.
        self._shared: Bool[np.ndarray, " C"] = (np.bincount(classes) > 1)[classes]
        images = np.repeat(np.arange(len(positives.offsets) - 1), positives.counts())
        shared = self._shared[positives.positions]
        self._codes = np.unique(self._code(images[shared], positives.positions[shared]))

    @property
    def possible(self) -> bool:
        """Whether any pair has the property but the annotated ones."""
        return len(self._codes) > 0

    def holds(self, images: Int64[np.ndarray, " N"], captions: Int64[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """As `Relation.holds`."""
        result = np.asarray(self._shared[captions])
        asked = np.flatnonzero(result)
        result[asked] = is_among(self._code(images[asked], captions[asked]), self._codes)
        return result

    def _code(self, images: Int64[np.ndarray, " N"], captions: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
        return np.asarray(images * (len(self._classes) + 1) + self._classes[captions])


class SimilarText:
    """The caption's cosine with one of the image's captions reaches a bound.

    Args:
        positives: Captions of each image.
        vectors: Unit vectors of the captions, float32 [C, D].
        bound: The cosine.
    """

    def __init__(self, positives: Excluded, vectors: Float32[np.ndarray, "C D"], bound: float) -> None:
        self._positives = positives
        self._vectors = vectors
        self._bound = bound

    def holds(self, images: Int64[np.ndarray, " N"], captions: Int64[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """As `Relation.holds`."""
        result = np.zeros(len(images), dtype=np.bool_)
        width = self._vectors.shape[1]
        # Pairs are cut so that a tile holds about as many positives whatever the image has.
        work = np.cumsum(self._positives.counts()[images]) * width // _TILE_ELEMENTS
        for pairs in np.split(np.arange(len(images)), np.flatnonzero(np.diff(work)) + 1):
            owners, theirs = self._positives.of(images[pairs])
            left = self._vectors[captions[pairs[owners]]].astype(np.float64)
            cosines = np.einsum("nd,nd->n", left, self._vectors[theirs].astype(np.float64)).astype(np.float32)
            result[pairs[owners[cosines >= np.float32(self._bound)]]] = True
        return result


class SameGroup:
    """Image and caption share a group.

    Args:
        images: Groups of each image, as numbers.
        captions: Groups of each caption.
    """

    def __init__(self, images: Excluded, captions: Excluded) -> None:
        self._images = images
        self._count = 1 + max((int(side.positions.max()) for side in (images, captions) if len(side.positions)), default=0)
        owners = np.repeat(np.arange(len(captions.offsets) - 1), captions.counts())
        self._codes = np.unique(owners * self._count + captions.positions)

    def holds(self, images: Int64[np.ndarray, " N"], captions: Int64[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """As `Relation.holds`."""
        result = np.zeros(len(images), dtype=np.bool_)
        owners, groups = self._images.of(images)
        result[owners[is_among(captions[owners] * self._count + groups, self._codes)]] = True
        return result


def is_among(values: Int64[np.ndarray, " N"], ascending: Int64[np.ndarray, " M"]) -> Bool[np.ndarray, " N"]:
    """Whether each value occurs in an ascending array."""
    if not len(ascending):
        return np.zeros(len(values), dtype=np.bool_)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[places] == values)
