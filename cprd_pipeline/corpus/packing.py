"""Original image files in Parquet shards of the corpus folder, so that a network disk is read in long pieces.

A shard holds a fixed number of images in the order of images.parquet, hence a killed run finds its shards again. Its row groups
are about a megabyte: what reading one image at random costs at most, beside the image itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cprd_pipeline.corpus.formats.records import ImageRecord, StoredImage
from cprd_pipeline.corpus.originals import read_unchanged
from cprd_pipeline.corpus.roots import Root
from cprd_pipeline.corpus.workers import Workers
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.progress import progress_bar
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import DIGEST

SHARD_IMAGES = 2048  # 200 MB of ordinary photographs
GROUP_BYTES = 2**20

_PREFIX = "packed/"
_OPEN_SHARDS = 8  # a process keeps so many open, each with its last row group
_COLUMNS = pa.schema([pa.field("digest", DIGEST, nullable=False), pa.field("bytes", pa.binary(), nullable=False)])


def pack_images(images: Sequence[ImageRecord], digests: Sequence[bytes], root: Root, writer: OutputWriter, workers: int) -> None:
    """Add the images' files to an output as parts `packed/00000.parquet` and so on; those already there are kept.

    Args:
        images: The images, in the order of images.parquet.
        digests: Of their files' bytes.
        root: What their paths are relative to.
        writer: Of the corpus.
        workers: Reading processes; 0 for this one.

    Raises:
        CorpusError: A file is gone or has changed since its digest was taken; the message names the image.
        MachineError: The disk is full, a worker died, or a remote root cannot be reached.
    """
    tasks = list(zip(images, digests, strict=True))
    shards = {_shard_name(start): tasks[start : start + SHARD_IMAGES] for start in range(0, len(tasks), SHARD_IMAGES)}
    missing = {name: shard for name, shard in shards.items() if not (writer.has(name) and _holds(writer.folder / name, shard))}
    todo = [task for shard in missing.values() for task in shard]
    with progress_bar("packing", len(tasks), "images", done=len(tasks) - len(todo)) as bar, Workers(workers) as pool:
        contents = pool.map(partial(_read_named, root), todo)
        for name, shard in missing.items():
            files = zip((digest for _, digest in shard), islice(contents, len(shard)), strict=True)
            writer.write_part(name, partial(_write_shard, files), rows=len(shard))
            bar.advance(len(shard))


@dataclass(frozen=True, slots=True)
class PackedImage(StoredImage):
    """Where an image lies in a shard.

    Args:
        shard: The Parquet file.
        checksum: Of the shard: another one at the same place is not taken for it.
        row: In the shard.
    """

    shard: Path
    checksum: str
    row: int

    def read(self) -> bytes:
        """The image file's bytes.

        Raises:
            CorpusError: The shard is gone or damaged.
        """
        try:
            return _open_shard(self.shard, self.checksum).read(self.row)
        except (OSError, pa.ArrowException, IndexError) as error:
            raise CorpusError(
                f"{self.shard}: {' '.join(str(error).split())}",
                expected="the shard as it was packed",
                do="prepare the corpus again",
            ) from None


class PackedImages:
    """The packed images of a corpus folder, by row of images.parquet; none where nothing was packed.

    Args:
        folder: The corpus.
    """

    def __init__(self, folder: InputFolder) -> None:
        # Whole shards are not compared with their checksums: that reads everything, and each image's digest is checked anyway.
        self._parts = [part for part in folder.manifest.parts if part.name.startswith(_PREFIX)]
        self._folder = folder.path
        self._rows = [part.rows or 0 for part in self._parts]
        self._ends = np.cumsum(self._rows, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, row: int) -> PackedImage:
        number = int(np.searchsorted(self._ends, row, side="right"))
        part = self._parts[number]
        return PackedImage(self._folder / part.name, part.checksum, int(row - self._ends[number] + self._rows[number]))


class _Shard:
    """An open shard and the row group that was read last."""

    def __init__(self, path: Path) -> None:
        # Not memory-mapped: on a network disk that faults page by page.
        self._file = pq.ParquetFile(path, memory_map=False)
        groups = self._file.metadata.num_row_groups
        self._ends = np.cumsum([self._file.metadata.row_group(group).num_rows for group in range(groups)])
        self._last: tuple[int, pa.ChunkedArray] | None = None

    def read(self, row: int) -> bytes:
        group = int(np.searchsorted(self._ends, row, side="right"))
        if group == len(self._ends):
            raise IndexError(f"{row} is past the last row")
        if self._last is None or self._last[0] != group:
            self._last = group, self._file.read_row_group(group, columns=["bytes"], use_threads=False)["bytes"]
        _, column = self._last
        content: bytes = column[row - int(self._ends[group]) + len(column)].as_py()
        return content


@lru_cache(maxsize=_OPEN_SHARDS)
def _open_shard(path: Path, checksum: str) -> _Shard:
    return _Shard(path)


def _shard_name(first: int) -> str:
    return f"{_PREFIX}{first // SHARD_IMAGES:05d}.parquet"


def _read_named(root: Root, task: tuple[ImageRecord, bytes]) -> bytes:
    image, digest = task
    try:
        return read_unchanged(root, image, digest)
    except CorpusError as error:
        raise CorpusError(f"image {image.image_id}: {error.found}", expected=error.expected, do=error.do) from None


def _holds(path: Path, shard: Sequence[tuple[ImageRecord, bytes]]) -> bool:
    """Whether a killed run packed the same images: one that was bad then may have been mended, and all others moved on."""
    found: list[bytes] = pq.read_table(path, columns=["digest"])["digest"].to_pylist()
    return found == [digest for _, digest in shard]


def _write_shard(files: Iterable[tuple[bytes, bytes]], path: Path) -> None:
    # Files of images are compressed and differ from each other: zstd and dictionaries would only cost time.
    with pq.ParquetWriter(path, _COLUMNS, compression="none", use_dictionary=False, write_statistics=False) as shard:
        for group in _cut(files):
            shard.write_table(pa.table([list(column) for column in zip(*group, strict=True)], schema=_COLUMNS))


def _cut(files: Iterable[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Groups of at least `GROUP_BYTES`, but for the last one."""
    group, size = list[tuple[bytes, bytes]](), 0
    for file in files:
        group.append(file)
        size += len(file[1])
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
