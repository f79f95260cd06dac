"""Both sides of a split by content, and which contents are annotated with each other."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64

from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.errors import CorpusError, SettingsError
from cprd_pipeline.mining.contents import Contents, group_contents
from cprd_pipeline.mining.search import Excluded


@dataclass(frozen=True)
class Sides:
    """A split.

    Args:
        images: Its images.
        captions: Its captions.
        pairs: Annotated pairs as (row of the images, row of the captions), int64 [P, 2].
    """

    images: Contents
    captions: Contents
    pairs: Int64[np.ndarray, "P 2"]

    @cached_property
    def captions_of_images(self) -> Excluded:
        """Caption contents of each image content."""
        return group_positives(self.pairs, self.images, self.captions)

    @cached_property
    def images_of_captions(self) -> Excluded:
        """Image contents of each caption content."""
        return group_positives(self.pairs[:, ::-1], self.captions, self.images)


def group_sides(corpus: Corpus, split: Split, k: int) -> Sides:
    """Both sides of a split.

    Args:
        corpus: The corpus.
        split: One of its splits.
        k: Candidates that are wanted of each query.

    Raises:
        CorpusError: A side has a single content, so that nothing can be a negative.
        SettingsError: A side has fewer than k contents.
    """
    images, captions = group_contents(corpus.images, split.images), group_contents(corpus.captions, split.captions)
    found = f"{corpus.path}: split {split.name!r} has {len(images):,} different images and {len(captions):,} different captions"
    fewest = min(len(images), len(captions))
    if fewest < 2:
        raise CorpusError(
            found,
            expected="at least two of each, since candidates are what does not belong to the query",
            do="prepare a larger corpus, or choose another split",
        )
    if k > fewest:
        raise SettingsError(found, expected=f"at least the k of {k:,} that each query is to get", do=f"set k to at most {fewest:,}")
    pairs = np.stack(
        [np.searchsorted(split.images, split.positives[:, 0]), np.searchsorted(split.captions, split.positives[:, 1])], axis=1
    )
    return Sides(images, captions, pairs)


def group_positives(pairs: Int64[np.ndarray, "P 2"], queries: Contents, items: Contents) -> Excluded:
    """Positive contents of each query content, so that positives are closed over equal contents on both sides.

    Args:
        pairs: (row of `queries`, row of `items`).
        queries: The side that asks.
        items: The side that is asked for.
    """
    return pairs_by_owner(queries.of_row[pairs[:, 0]], items.of_row[pairs[:, 1]], len(queries))


def pairs_by_owner(owners: Int64[np.ndarray, " N"], values: Int64[np.ndarray, " N"], count: int) -> Excluded:
    """Distinct values of each owner, ascending.

    Args:
        owners: Of each value.
        values: Not negative.
        count: Number of owners.
    """
    width = values.max(initial=0) + 1
    codes = np.unique(owners * width + values)
    return Excluded(offsets_of(codes // width, count), codes % width)


def offsets_of(owners: Int64[np.ndarray, " N"], count: int) -> Int64[np.ndarray, " M"]:
    """Offsets of the ranges of equal owners, one more than `count`; `owners` ascends."""
    return np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=count))]).astype(np.int64)
