"""Splits that the settings give: lists of image names, and a limit on each split's size."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cprd_pipeline.corpus.formats.lines import lines_of
from cprd_pipeline.corpus.formats.records import CaptionRecord, ImageRecord, Records
from cprd_pipeline.corpus.formats.source import SourceFile
from cprd_pipeline.corpus.settings import REST
from cprd_pipeline.errors import CorpusError


@dataclass(frozen=True)
class SplitLists:
    """Names of images by split.

    Args:
        files: The list of each split.
        rest: The split that takes all others; None when they are left out.
    """

    files: dict[str, SourceFile]
    rest: str | None


def open_lists(settings: Mapping[str, Path]) -> SplitLists:
    """The files that `files.split_lists` names.

    Raises:
        CorpusError: One is missing, empty or a Git LFS pointer.
    """
    rest = next((split for split, path in settings.items() if str(path) == REST), None)
    files = {split: SourceFile(path, setting=f"files.split_lists.{split}") for split, path in settings.items() if split != rest}
    return SplitLists(files, rest)


def assign_lists(records: Records, lists: SplitLists) -> tuple[Records, dict[str, int]]:
    """Give every image the split whose list names it: by id, path, file name, or file name without its ending.

    Returns:
        The records, without images that no list names where no split takes the rest; and how many images and captions were left
        out, and how many listed names no image has.

    Raises:
        CorpusError: An image is in two lists, or a list names no image of the source at all.
    """
    rows = _names_of(records.images)
    splits: list[str | None] = [None] * len(records.images)
    unknown = 0
    for split, source in lists.files.items():
        hits = 0
        for number, line in lines_of(source):
            found = rows.get(line.strip(), ())
            unknown += not found
            for row in found:
                if splits[row] not in (None, split):
                    raise CorpusError(
                        f"{source.path}: line {number}: image {records.images[row].image_id} is in the list of {splits[row]} too",
                        expected="one split an image",
                        do="remove it from one of the lists",
                    )
                splits[row] = split
            hits += bool(found)
        if not hits:
            raise CorpusError(
                f"{source.path}: names no image of the source", expected="one image name a line", do="mend files.split_lists"
            )
    images = [
        image if image.split == split else replace(image, split=split)
        for image, split in zip(records.images, (split or lists.rest for split in splits), strict=True)
        if split is not None
    ]
    kept = keep_images(records, images)
    left_out = len(records.images) - len(images), len(records.captions) - len(kept.captions)
    counts = {"unlisted_images": left_out[0], "unlisted_captions": left_out[1], "unknown_listed_names": unknown}
    return replace(kept, splits_given=True), counts


def limit_images(records: Records, most: int) -> Records:
    """The first images of each split, with their captions; unpaired captions stay."""
    taken: Counter[str] = Counter()
    images = []
    for image in records.images:
        if taken[image.split] < most:
            taken[image.split] += 1
            images.append(image)
    return keep_images(records, images)


def keep_images(records: Records, images: list[ImageRecord]) -> Records:
    """Records of some of the images: captions lose the others, and go when they lose all."""
    ids = {image.image_id for image in images}
    captions = [kept for caption in records.captions if (kept := _of(caption, ids)) is not None]
    return replace(records, images=images, captions=captions)


def _of(caption: CaptionRecord, ids: set[str]) -> CaptionRecord | None:
    owners = caption.image_ids
    if not owners or (len(owners) == 1 and owners[0] in ids):
        return caption
    kept = tuple(owner for owner in owners if owner in ids)
    return replace(caption, image_ids=kept) if kept else None


def check_records(records: Records, where: str, *, keep_unpaired: bool) -> None:
    """Refuse captions of two splits, and unpaired items unless they are welcome.

    Raises:
        CorpusError: The message names the first one.
    """
    splits = {image.image_id: image.split for image in records.images}
    lonely = dict.fromkeys(splits)
    for caption in records.captions:
        for owner in caption.image_ids:
            lonely.pop(owner, None)
        if len(caption.image_ids) > 1 and len({splits[owner] for owner in caption.image_ids}) > 1:
            raise CorpusError(
                f"{where}: caption {caption.caption_id} describes images of several splits ({', '.join(caption.image_ids[:3])})",
                expected="one split a caption",
                do="give it another id for each split",
            )
    alone = next((caption.caption_id for caption in records.captions if not caption.image_ids), None)
    if keep_unpaired or not (lonely or alone):
        return
    found = (
        f"{len(lonely):,} images have no caption, the first is {next(iter(lonely))}" if lonely else f"caption {alone} has no image"
    )
    raise CorpusError(f"{where}: {found}", expected="pairs", do="mend the source, or keep unpaired items with files.unpaired: keep")


def _names_of(images: Sequence[ImageRecord]) -> dict[str, Sequence[int]]:
    """Rows of every name that a list may use; names that are less exact never hide more exact ones."""
    exact: dict[str, Sequence[int]] = {}
    loose: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        path = PurePosixPath(image.path or image.image_id)
        exact.setdefault(image.image_id, (row,))
        exact.setdefault(str(path), (row,))
        for name in {path.name, path.stem}:
            loose.setdefault(name, []).append(row)
    return {**{name: rows for name, rows in loose.items() if len(rows) == 1}, **exact}
