"""Where every reader puts what it finds: ids, paths and splits are checked the same way for all formats."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cprd_pipeline.corpus.formats.records import ONLY_SPLIT, CaptionRecord, ImageRecord, Records, StoredImage
from cprd_pipeline.corpus.roots import Root
from cprd_pipeline.errors import CorpusError

_SPLIT_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MEND = "mend or remove this entry"


class Collector:
    """Builds the records of a source, entry by entry.

    Args:
        image_root: What image paths are relative to.
        rename_splits: New names for splits.
    """

    def __init__(self, image_root: Root, rename_splits: Mapping[str, str]) -> None:
        self.image_root = image_root
        self.notes: list[str] = []
        self._rename = rename_splits
        self._images: dict[str, ImageRecord] = {}
        self._captions: dict[str, CaptionRecord] = {}
        # The images of each caption of several, as keys in the order of the source: a text may stand under very many.
        self._owners: dict[str, dict[str, None]] = {}
        self._spoken: dict[str, int] = {}
        self._splits_given = False
        self._known_splits: dict[str, str] = {}

    def has_image(self, image_id: str) -> bool:
        """Whether an image of this id was added."""
        return image_id in self._images

    def has_caption(self, caption_id: str) -> bool:
        """Whether a caption of this id was added."""
        return caption_id in self._captions

    def add_image(self, image_id: str, path: str, split: str | None, where: str, *, again: bool = False) -> str:
        """Add an image file.

        Args:
            image_id: Its id; an empty one stands for the path.
            path: Relative to the image root, or absolute and inside it.
            split: None when the source says nothing.
            where: File and line or key, for messages.
            again: Whether an image may be named in several entries, which then must agree.

        Returns:
            The id.

        Raises:
            CorpusError: The path leaves the root, the id occurs twice, or one image is put into two splits.
        """
        inside = self._inside(path, where)
        record = ImageRecord(clean_id(image_id, where) or inside, self._split(split, where), inside)
        known = self._images.setdefault(record.image_id, record)
        if known is not record:
            self._check_split(known, record, where)
            if not again or known.path != record.path:
                raise _repeated("image", record.image_id, where)
        return record.image_id

    def add_stored_image(
        self, image_id: str, stored: StoredImage | bytes, split: str | None, where: str, *, again: bool = False
    ) -> str:
        """Add an image whose file lies inside another file.

        Args:
            image_id: Its id.
            stored: Where it lies.
            split: None when the source says nothing.
            where: File and row or member, for messages.
            again: Whether an image may occur in several entries, which then must hold the same file.

        Returns:
            The id.

        Raises:
            CorpusError: The id occurs twice, or one image is put into two splits.
        """
        record = ImageRecord(clean_id(image_id, where), self._split(split, where), stored=stored)
        known = self._images.setdefault(record.image_id, record)
        if known is not record:
            self._check_split(known, record, where)
            if not again or known.content != record.content:
                raise _repeated("image", record.image_id, where)
        return record.image_id

    def add_caption(self, caption_id: str, text: str, image_id: str | None, where: str, split: str | None = None) -> None:
        """Add a caption.

        Args:
            caption_id: Its id; an empty one is made from the image's id and the number of the caption among the image's.
            text: Untouched; whether it can be used is decided later.
            image_id: The image that it describes, added before; None for none.
            where: File and line or key, for messages.
            split: Of a caption without image.

        Raises:
            CorpusError: The id occurs twice.
        """
        name = clean_id(caption_id, where) or self._next_name(image_id or "caption")
        if name in self._captions:
            raise _repeated("caption", name, where)
        owners = () if image_id is None else (image_id,)
        self._captions[name] = CaptionRecord(name, text, owners, ONLY_SPLIT if image_id else self._split(split, where))

    def share_caption(self, caption_id: str, text: str, image_id: str, where: str) -> None:
        """Say that a caption that is there already describes one more image.

        Raises:
            CorpusError: Its text is another one, or it describes that image already.
        """
        known = self._captions[caption_id]
        if known.text != text:
            raise CorpusError(
                f"{where}: caption {caption_id!r} occurs more than once, with different texts",
                expected="one text a caption id",
                do="number the captions anew, or leave their ids out",
            )
        owners = self._owners.setdefault(caption_id, dict.fromkeys(known.image_ids))
        if not owners or image_id in owners:
            raise _repeated("caption", caption_id, where)
        owners[image_id] = None

    def finish(self) -> Records:
        """The records."""
        for caption_id, owners in self._owners.items():
            self._captions[caption_id] = replace(self._captions[caption_id], image_ids=tuple(owners))
        return Records(list(self._images.values()), list(self._captions.values()), self.image_root, self._splits_given, self.notes)

    @staticmethod
    def _check_split(known: ImageRecord, record: ImageRecord, where: str) -> None:
        if known.split != record.split:
            raise CorpusError(
                f"{where}: image {record.image_id} is of split {record.split}, and of {known.split} in an earlier entry",
                expected="one split an image",
                do="remove one of the two entries",
            )

    def _next_name(self, stem: str) -> str:
        number = self._spoken.get(stem, 0)
        self._spoken[stem] = number + 1
        return f"{stem}#{number}"

    def _split(self, split: str | None, where: str) -> str:
        if split is None:
            return ONLY_SPLIT
        self._splits_given = True
        known = self._known_splits.get(split)
        if known is None:
            known = self._rename.get(split, split)
            if not known or not _SPLIT_LETTERS.issuperset(known):
                raise CorpusError(
                    f"{where}: split is {split[:60]!r}",
                    expected="letters, digits, - and _",
                    do="mend it, or use files.rename_splits",
                )
            self._known_splits[split] = known
        return known

    def _inside(self, path: str, where: str) -> str:
        """The path relative to the root, refused when it leaves it; links are looked at when the file is read."""
        if "://" in path:
            raise CorpusError(
                f"{where}: path {path[:80]!r} is an address", expected="a file in the image folder", do="download the images first"
            )
        pure = PurePosixPath(clean_id(path, where))
        if pure.is_absolute() and isinstance(self.image_root, Path):
            root = self.image_root.absolute()
            pure = pure.relative_to(root) if pure.is_relative_to(root) else pure
        if pure.is_absolute() or ".." in pure.parts or str(pure) == ".":
            raise CorpusError(
                f"{where}: path {path[:80]!r} leaves the image folder {self.image_root}",
                expected="a path inside it",
                do="mend the entry or files.images",
            )
        return str(pure)


def clean_id(text: str, where: str) -> str:
    """An id or path, if it can be written as UTF-8 on one line.

    Raises:
        CorpusError: It holds half of a surrogate pair, a line break or another control character.
    """
    if not text.isprintable() and _CONTROL.search(text):
        raise CorpusError(f"{where}: {text[:60]!r} holds a control character", expected="a name on one line", do=_MEND)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CorpusError(f"{where}: {text[:60]!r} holds half of a surrogate pair", expected="valid Unicode", do=_MEND) from None
    return text


def _repeated(what: str, name: str, where: str) -> CorpusError:
    return CorpusError(
        f"{where}: {what} id {name!r} occurs more than once",
        expected="every id once",
        do="remove the repeated entry, or number them anew",
    )
