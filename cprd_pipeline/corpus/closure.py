"""Equal content under several ids: positives closed over it, duplicates, and leaks between splits."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Content(NamedTuple):
    """What an item is and where it belongs.

    Args:
        digest: Of the file's bytes or of the text.
        split: Its split.
    """

    digest: bytes
    split: str


def close_positives(
    images: Sequence[Content], captions: Sequence[Content], annotated: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Every pair whose contents were annotated for each other under any ids, both sides in one split.

    Args:
        images: Content of each image row.
        captions: Content of each caption row.
        annotated: (image row, caption row).

    Returns:
        (image row, caption row), sorted, each once.
    """
    image_rows, caption_rows = _rows_of(images), _rows_of(captions)
    contents = {(images[image].digest, captions[caption].digest) for image, caption in annotated}
    splits = sorted({image.split for image in images})
    closed = (
        (image, caption)
        for image_digest, caption_digest in contents
        for split in splits
        for image in image_rows.get(Content(image_digest, split), ())
        for caption in caption_rows.get(Content(caption_digest, split), ())
    )
    return sorted(closed)


def count_duplicates(items: Sequence[Content]) -> int:
    """Items whose content another item of the same split, further up, has already."""
    return len(items) - len(set(items))


def count_leaks(items: Sequence[Content]) -> int:
    """Contents that lie in more than one split."""
    splits = defaultdict(set)
    for item in items:
        splits[item.digest].add(item.split)
    return sum(len(found) > 1 for found in splits.values())


def _rows_of(items: Sequence[Content]) -> dict[Content, list[int]]:
    rows: dict[Content, list[int]] = defaultdict(list)
    for row, item in enumerate(items):
        rows[item].append(row)
    return rows
