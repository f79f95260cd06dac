"""Parquet tables: one row a caption or an image, columns by name; the image column holds paths or the files' bytes.

Bytes are not loaded: a record holds the place of its cell. An image may also be Hugging Face's struct of `bytes` and `path`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cprd_pipeline.corpus.formats.arrow_cells import NO_BYTES, is_bytes, is_struct, stamp
from cprd_pipeline.corpus.formats.columns import Columns, need_columns
from cprd_pipeline.corpus.formats.places import collector_for
from cprd_pipeline.corpus.formats.records import Records, StoredImage
from cprd_pipeline.corpus.formats.rows import Row, RowReader
from cprd_pipeline.corpus.formats.source import Format, SourceFile
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError

_MAGIC = b"PAR1"
_DAMAGE = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError)


@dataclass(frozen=True, slots=True)
class ParquetCell(StoredImage):
    """An image file inside a Parquet table.

    Args:
        file: The table.
        column: Column, or path of a struct's field such as `image.bytes`.
        group: Row group.
        row: Row in that group.
    """

    file: Path
    column: str
    group: int
    row: int

    def read(self) -> bytes:
        """The image file's bytes.

        Raises:
            CorpusError: The cell is null, or the table can no longer be read.
        """
        try:
            value = _column(self.file, stamp(self.file), self.column, self.group)[self.row].as_py()
        except _DAMAGE as error:
            raise _damaged(self.file, error) from None
        if value is None:
            raise CorpusError(NO_BYTES)
        return bytes(value)


@lru_cache(maxsize=2)
def _column(file: Path, stamped: tuple[int, int], column: str, group: int) -> pa.ChunkedArray:
    # Images are asked for in file order: one row group at a time is decoded, once a process.
    found = pq.ParquetFile(file).read_row_group(group, columns=[column]).column(0)
    if not is_struct(found.type):
        return found
    return pa.chunked_array([chunk.field(0) for chunk in found.chunks], type=found.type.field(0).type)


def refuse_parquet(source: SourceFile, settings: FilesSettings) -> str:
    """Why a path is no Parquet file, and no folder of them."""
    if source.is_folder:
        return "" if any(source.path.glob("*.parquet")) else "a folder without .parquet files"
    return "" if source.head.startswith(_MAGIC) else "no Parquet file"


def read_parquet(sources: Sequence[SourceFile], settings: FilesSettings) -> Records:
    """Images and captions of tables.

    Raises:
        CorpusError: A table is damaged, a column is missing or of an unusable type, or what rows refuse.
    """
    found = collector_for(sources, settings)
    for source in sources:
        for path in sorted(source.path.glob("*.parquet")) if source.is_folder else [source.path]:
            try:
                table = pq.ParquetFile(path)
                columns = need_columns(table.schema_arrow.names, settings.columns, str(path))
                reader = RowReader(found, columns, settings)
                for row in _rows(path, table, columns):
                    reader.add(row, source.split)
            except CorpusError:
                raise
            except _DAMAGE as error:
                raise _damaged(path, error) from None
    return found.finish()


def _rows(path: Path, table: Any, columns: Columns) -> Iterator[Row]:
    image = columns.image or ""
    kind = table.schema_arrow.field(image).type
    stored = _stored_column(table, image, kind)
    read = [name for name in columns if name and not (stored and name == image)]
    read = [f"{name}.path" if name == image and is_struct(kind) else name for name in read]
    first = 0
    for group in range(table.num_row_groups):
        rows: list[dict[str, Any]] = table.read_row_group(group, columns=read).to_pylist()
        for number, values in enumerate(rows):
            if stored:
                values[image] = ParquetCell(path.absolute(), stored, group, number)
            elif isinstance(values[image], dict):
                values[image] = values[image].get("path")
            yield Row(f"{path}: row {first + number}", values, f"{path.stem}-{first + number:08d}")
        first += len(rows)


def _stored_column(table: Any, image: str, kind: pa.DataType) -> str:
    """The column that holds files' bytes; empty when paths are given."""
    if is_bytes(kind):
        return image
    if is_struct(kind) and "bytes" in [field.name for field in kind]:
        place = f"{image}.bytes"
        return place if _begins_with_bytes(table, place) else ""
    return ""


def _begins_with_bytes(table: Any, place: str) -> bool:
    """Whether the first row has a file's bytes: a dataset that was never embedded has the struct with nothing but paths in it.

    Not asked from the statistics of the file, which end the process when the file is damaged.
    """
    first = next(table.iter_batches(batch_size=1, columns=[place]), None)
    return first is not None and bool(first.column(0).field(0).is_valid()[0].as_py())


def _damaged(path: Path, error: Exception) -> CorpusError:
    return CorpusError(
        f"{path}: cannot be read as Parquet ({type(error).__name__}: {' '.join(str(error).split())[:120]})",
        expected="a whole Parquet file",
        do="fetch it again",
    )


PARQUET = Format("parquet", "Parquet tables", refuse_parquet, read_parquet)
