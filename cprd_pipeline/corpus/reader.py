"""The corpus folder as arrays: ids, digests, splits, and who describes whom. Rows are positions in the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cprd_pipeline.corpus.formats.records import ImageRecord
from cprd_pipeline.corpus.packing import PackedImages
from cprd_pipeline.corpus.roots import Root, parse_root
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.fingerprint import DigestArray, stack_digests
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.schemas import CAPTIONS, IMAGES, POSITIVES, check_schema

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Items:
    """One side of a corpus, images or captions, in file order.

    Args:
        ids: Unique ids.
        digests: Content digests, uint8 [N, 16].
        splits: Split name of each.
    """

    ids: list[str]
    digests: DigestArray
    splits: npt.NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each id."""
        return {item: row for row, item in enumerate(self.ids)}

    @cached_property
    def first_with_digest(self) -> Rows:
        """For each row, the first row that has the same digest: equal values mean equal content. int64 [N]."""
        keys = self.digests.view([("", np.uint8)] * self.digests.shape[1]).ravel()
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        return first[inverse].astype(np.int64)


@dataclass(frozen=True)
class Split:
    """The rows of one split. `positives` is int64 [P, 2]: (image row, caption row) with both sides in the split."""

    name: str
    images: Rows
    captions: Rows
    positives: Rows


class Corpus:
    """A corpus folder that `prepare` wrote.

    Args:
        path: The folder.

    Raises:
        StoreError: The folder is not a whole corpus of this schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = InputFolder(path, "corpus")
        self.digest = self.folder.manifest.digest
        images = check_schema(self.folder.table("images.parquet"), IMAGES, f"{path}/images.parquet")
        captions = check_schema(self.folder.table("captions.parquet"), CAPTIONS, f"{path}/captions.parquet")
        positives = check_schema(self.folder.table("positives.parquet"), POSITIVES, f"{path}/positives.parquet")
        self.images = _items(images, "image_id")
        self.captions = _items(captions, "caption_id")
        self.texts: list[str] = captions["text"].to_pylist()
        self.image_paths = images["path"]
        self.image_bytes = images["bytes"]
        self._packed = PackedImages(self.folder)
        self.positives = self._resolve(positives)

    @property
    def image_root(self) -> Root:
        """What image paths are relative to."""
        return parse_root(self.folder.manifest.settings["image_root"])

    def original(self, row: int) -> ImageRecord:
        """The image of a row and where its file lies: packed, in the table, or under the root."""
        packed = self._packed[row] if len(self._packed) else self.image_bytes[row].as_py()
        return ImageRecord(self.images.ids[row], str(self.images.splits[row]), self.image_paths[row].as_py(), packed)

    def split(self, name: str) -> Split:
        """The rows of a split.

        Raises:
            CorpusError: The split holds no images or no captions.
        """
        images = np.flatnonzero(self.images.splits == name)
        captions = np.flatnonzero(self.captions.splits == name)
        if not len(images) or not len(captions):
            known = ", ".join(sorted(set(self.images.splits.tolist()) | set(self.captions.splits.tolist())))
            raise CorpusError(
                f"{self.path}: split {name!r} has {len(images)} images and {len(captions)} captions",
                expected="at least one of each",
                do=f"choose one of the splits {known}, or prepare the corpus with another split rule",
            )
        inside = (self.images.splits[self.positives[:, 0]] == name) & (self.captions.splits[self.positives[:, 1]] == name)
        return Split(name, images, captions, self.positives[inside])

    def _resolve(self, positives: pa.Table) -> Rows:
        rows = np.empty((positives.num_rows, 2), dtype=np.int64)
        rows[:, 0] = look_up_ids(self.images, positives["image_id"].to_pylist(), f"{self.path}: positives.parquet, image_id")
        rows[:, 1] = look_up_ids(self.captions, positives["caption_id"].to_pylist(), f"{self.path}: positives.parquet, caption_id")
        return rows


def _items(table: pa.Table, id_column: str) -> Items:
    ids = table[id_column].to_pylist()
    items = Items(ids, stack_digests(table["digest"].to_pylist()), np.asarray(table["split"].to_pylist(), dtype=np.object_))
    if len(items.row_of) != len(ids):
        raise CorpusError(
            f"{id_column} occurs twice in a corpus table", expected="unique ids", do="run `cprd-pipeline prepare` again"
        )
    return items


def look_up_ids(items: Items, ids: Sequence[str], where: str) -> Rows:
    """Rows of ids, int64 [N].

    Raises:
        CorpusError: An id is in no table; the message names `where` and the id.
    """
    try:
        return np.fromiter((items.row_of[item] for item in ids), dtype=np.int64, count=len(ids))
    except KeyError as error:
        raise CorpusError(
            f"{where}: {error.args[0]!r} is not in the corpus",
            expected="ids of this corpus",
            do="make the file again from this corpus",
        ) from None
