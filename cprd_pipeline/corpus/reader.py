"""The corpus folder as arrays: ids, digests, splits, and who describes whom. Rows are positions in the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cprd_pipeline.corpus.formats.records import ImageRecord
from cprd_pipeline.corpus.lookup import IdLookup
from cprd_pipeline.corpus.packing import PackedImages
from cprd_pipeline.corpus.roots import Root, parse_root
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.fingerprint import DIGEST_BYTES, DigestArray
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.schemas import CAPTIONS, IMAGES, POSITIVES, check_schema

Rows = npt.NDArray[np.int64]


class Items:
    """One side of a corpus, images or captions, in file order.

    Args:
        ids: Unique ids; as an Arrow array they take a fraction of the time and memory of Python's strings.
        digests: Content digests, uint8 [N, 16].
        splits: Split name of each.

    Attributes:
        arrow_ids: The ids, with offsets of 64 bits: a side's ids may be more than the 2 GiB that those of 32 reach.
    """

    def __init__(self, ids: Sequence[str] | pa.Array, digests: DigestArray, splits: npt.NDArray[np.object_]) -> None:
        strings = ids if isinstance(ids, pa.Array) else pa.array(ids, pa.string())
        self.arrow_ids: pa.LargeStringArray = strings.cast(pa.large_string())
        self.digests = digests
        self.splits = splits

    def __len__(self) -> int:
        return len(self.arrow_ids)

    @cached_property
    def ids(self) -> list[str]:
        """The ids as Python's strings."""
        names: list[str] = self.arrow_ids.to_pylist()
        return names

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each id."""
        return {item: row for row, item in enumerate(self.ids)}

    @cached_property
    def lookup(self) -> IdLookup:
        """Finds the rows of many ids at a time; made once for all who ask."""
        return IdLookup(self.arrow_ids)

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
        self._texts = captions["text"]
        self.image_paths = images["path"]
        self.image_bytes = images["bytes"]
        self._packed = PackedImages(self.folder)
        self.positives = self._resolve(positives)

    @cached_property
    def texts(self) -> list[str]:
        """The text of each caption."""
        texts: list[str] = self._texts.to_pylist()
        return texts

    @property
    def image_root(self) -> Root:
        """What image paths are relative to."""
        return parse_root(self.folder.manifest.settings["image_root"])

    def original(self, row: int) -> ImageRecord:
        """The image of a row and where its file lies: packed, in the table, or under the root."""
        packed = self._packed[row] if len(self._packed) else self.image_bytes[row].as_py()
        # Not from `ids`: one picture is no reason to make Python's strings of all.
        image_id = self.images.arrow_ids[row].as_py()
        return ImageRecord(image_id, str(self.images.splits[row]), self.image_paths[row].as_py(), packed)

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
        rows[:, 0] = look_up_column(self.images, positives["image_id"], f"{self.path}: positives.parquet, image_id")
        rows[:, 1] = look_up_column(self.captions, positives["caption_id"], f"{self.path}: positives.parquet, caption_id")
        return rows


def _items(table: pa.Table, id_column: str) -> Items:
    # One array of `string` ends at 2 GiB, so chunks are combined only as something else.
    ids = table[id_column].cast(pa.large_string()).combine_chunks()
    splits = table["split"].dictionary_encode().combine_chunks()
    # One Python string a split, not one an item.
    names = np.asarray(splits.dictionary.to_pylist(), dtype=np.object_)
    items = Items(ids, column_digests(table["digest"].combine_chunks()), names[splits.indices.to_numpy()])
    # An id that occurs twice is found at its first row.
    if ids.null_count or (items.lookup.rows(ids) != np.arange(len(ids))).any():
        raise CorpusError(
            f"{id_column} occurs twice in a corpus table", expected="unique ids", do="run `cprd-pipeline prepare` again"
        )
    return items


def column_digests(column: pa.FixedSizeBinaryArray) -> DigestArray:
    """The digests of a column without nulls as rows, uint8 [N, 16], without a copy."""
    start, stop = (row * DIGEST_BYTES for row in (column.offset, column.offset + len(column)))
    return np.frombuffer(column.buffers()[1], dtype=np.uint8)[start:stop].reshape(-1, DIGEST_BYTES)


def look_up_ids(items: Items, ids: Sequence[str], where: str) -> Rows:
    """Rows of a few ids at a time, int64 [N]; of whole columns `look_up_column` is faster.

    Raises:
        CorpusError: An id is in no table; the message names `where` and the id.
    """
    try:
        return np.fromiter((items.row_of[item] for item in ids), dtype=np.int64, count=len(ids))
    except KeyError as error:
        raise _unknown(error.args[0], where) from None


def look_up_column(items: Items, ids: pa.Array | pa.ChunkedArray, where: str) -> Rows:
    """Rows of the ids of a column, int64 [N].

    Raises:
        CorpusError: As `look_up_ids`.
    """
    try:
        return items.lookup.rows(ids)
    except KeyError as error:
        raise _unknown(error.args[0], where) from None


def _unknown(item: str, where: str) -> CorpusError:
    return CorpusError(
        f"{where}: {item!r} is not in the corpus", expected="ids of this corpus", do="make the file again from this corpus"
    )
