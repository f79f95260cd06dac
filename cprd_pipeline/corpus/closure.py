"""Equal content under several ids: positives closed over it, duplicates, and leaks between splits."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.errors import CorpusError

MOST_CLOSED = 10
"""Positives for each annotated pair at which the closure stops: real captions that repeat add a few per cent, and a
text under 10,000 pictures makes a hundred million pairs that tell nothing."""

ALWAYS_ALLOWED = 1_000_000
"""So many positives are fine whatever their share."""


class Content(NamedTuple):
    """What an item is and where it belongs.

    Args:
        digest: Of the file's bytes or of the text.
        split: Its split.
    """

    digest: bytes
    split: str


def close_positives(
    images: Sequence[Content],
    captions: Sequence[Content],
    annotated: Iterable[tuple[int, int]],
    *,
    allowed: int = ALWAYS_ALLOWED,
    name_image: Callable[[int], str] = "image row {}".format,
    name_caption: Callable[[int], str] = "caption row {}".format,
) -> Rows:
    """Every pair whose contents were annotated for each other under any ids, both sides in one split.

    Time and memory are in proportion to the result, whose size is known before it is made.

    Args:
        images: Content of each image row.
        captions: Content of each caption row.
        annotated: (image row, caption row).
        allowed: So many positives are never too many.
        name_image: What an error calls an image, by its row.
        name_caption: What an error calls a caption, by its row.

    Returns:
        (image row, caption row), int64 [P, 2], sorted, each once.

    Raises:
        CorpusError: More than `allowed` and than `MOST_CLOSED` for each annotated pair; the message names the worst content.
    """
    pairs = np.array([*annotated], dtype=np.int64).reshape(-1, 2)
    splits = {split: code for code, split in enumerate(sorted({item.split for side in (images, captions) for item in side}))}
    image_side, caption_side = _Side(images, splits), _Side(captions, splits)
    image_groups, caption_groups = _join(image_side, caption_side, pairs)
    sizes = image_side.sizes[image_groups] * caption_side.sizes[caption_groups]
    if sizes.sum() > max(allowed, MOST_CLOSED * len(pairs)):
        image, image_makes = image_side.worst(image_groups, sizes)
        caption, caption_makes = caption_side.worst(caption_groups, sizes)
        worst = (name_image(image), image_makes) if image_makes > caption_makes else (name_caption(caption), caption_makes)
        raise CorpusError(
            f"{len(pairs):,} annotated pairs make {int(sizes.sum()):,} positives over equal contents, {worst[1]:,} of them"
            f" the content of {worst[0]}",
            expected=f"at most {MOST_CLOSED} for each annotated pair",
            do="leave out pictures and captions that stand for many different things",
        )
    # Of a pair of groups with a images and b captions the positives are numbered 0 to a * b - 1.
    number = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    image_place, caption_place = np.divmod(number, np.repeat(caption_side.sizes[caption_groups], sizes))
    closed = np.empty((len(number), 2), dtype=np.int64)
    closed[:, 0] = image_side.order[np.repeat(image_side.starts[image_groups], sizes) + image_place]
    closed[:, 1] = caption_side.order[np.repeat(caption_side.starts[caption_groups], sizes) + caption_place]
    return closed[np.lexsort((closed[:, 1], closed[:, 0]))]


def count_duplicates(items: Sequence[Content]) -> int:
    """Items whose content another item of the same split, further up, has already."""
    return len(items) - len(set(items))


def count_leaks(items: Sequence[Content]) -> int:
    """Contents that lie in more than one split."""
    return sum(splits > 1 for splits in Counter(item.digest for item in set(items)).values())


class _Side:
    """Images or captions in groups of equal content and split, ordered by content, then split.

    Args:
        items: Content of each row.
        splits: Code of each split.
    """

    def __init__(self, items: Sequence[Content], splits: Mapping[str, int]) -> None:
        codes = {digest: code for code, digest in enumerate(dict.fromkeys(item.digest for item in items))}
        self.content_of_row = np.fromiter((codes[item.digest] for item in items), dtype=np.int64, count=len(items))
        split_of_row = np.fromiter((splits[item.split] for item in items), dtype=np.int64, count=len(items))
        self._splits = max(1, len(splits))
        self._keys, group_of_row, self.sizes = np.unique(
            self.content_of_row * self._splits + split_of_row, return_inverse=True, return_counts=True
        )
        self.order = np.argsort(group_of_row, kind="stable")
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.content_of_group, self.split_of_group = np.divmod(self._keys, self._splits)
        self._first_group = np.searchsorted(self.content_of_group, np.arange(len(codes) + 1))

    def groups_of(self, contents: Rows) -> tuple[Rows, Rows]:
        """All groups of each content, and which of the contents asked for each group belongs to."""
        first, behind = self._first_group[contents], self._first_group[contents + 1]
        asked = np.repeat(np.arange(len(contents)), behind - first)
        offset = np.cumsum(behind - first) - (behind - first)
        return first[asked] + np.arange(len(asked)) - offset[asked], asked

    def find(self, contents: Rows, splits: Rows) -> Rows:
        """The group of each content in a split, -1 where there is none."""
        keys = contents * self._splits + splits
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[places] == keys, places, -1)

    def worst(self, groups: Rows, sizes: Rows) -> tuple[int, int]:
        """A row of the content with the largest sum of sizes, and that sum."""
        sums = np.bincount(self.content_of_group[groups], weights=sizes)
        content = int(sums.argmax())
        return int(np.flatnonzero(self.content_of_row == content)[0]), int(sums[content])


def _join(images: _Side, captions: _Side, pairs: Rows) -> tuple[Rows, Rows]:
    """Image group and caption group of every annotated pair of contents in every split that has both."""
    contents = np.unique(np.stack((images.content_of_row[pairs[:, 0]], captions.content_of_row[pairs[:, 1]]), axis=1), axis=0)
    image_groups, asked = images.groups_of(contents[:, 0])
    caption_groups = captions.find(contents[asked, 1], images.split_of_group[image_groups])
    both = caption_groups >= 0
    return image_groups[both], caption_groups[both]
