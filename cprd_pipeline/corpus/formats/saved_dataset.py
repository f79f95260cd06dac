"""Hugging Face `datasets`, as `save_to_disk` left them: one Dataset, or a DatasetDict whose keys are the splits.

The files are Arrow streams with JSON beside them, so that the package itself is not needed; they are mapped into memory,
not loaded.
Source: https://huggingface.co/docs/datasets (`Dataset.save_to_disk`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.corpus.formats.arrow_cells import NO_BYTES, is_bytes, is_struct, stamp
from cprd_pipeline.corpus.formats.collector import Collector
from cprd_pipeline.corpus.formats.columns import need_columns
from cprd_pipeline.corpus.formats.places import collector_for
from cprd_pipeline.corpus.formats.records import Records, StoredImage
from cprd_pipeline.corpus.formats.rows import Row, RowReader
from cprd_pipeline.corpus.formats.source import Format, SourceFile
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError

_STATE, _SPLITS = "state.json", "dataset_dict.json"
_DAMAGE = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError)
_ROWS = 1024  # turned into Python values at a time


@dataclass(frozen=True, slots=True)
class ArrowCell(StoredImage):
    """An image file inside an Arrow stream.

    Args:
        file: The stream.
        column: Its column.
        row: Row in the stream.
    """

    file: Path
    column: str
    row: int

    def read(self) -> bytes:
        """The image file's bytes.

        Raises:
            CorpusError: The cell is null, or the stream can no longer be read.
        """
        try:
            value = _mapped(self.file, stamp(self.file)).column(self.column)[self.row].as_py()
        except _DAMAGE as error:
            raise _damaged(self.file, error) from None
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise CorpusError(NO_BYTES)
        return bytes(content)


@lru_cache(maxsize=4)
def _mapped(file: Path, stamped: tuple[int, int]) -> pa.Table:
    with pa.memory_map(str(file)) as mapped:
        table = pa.ipc.open_stream(mapped).read_all()
    # Arrow trusts the offsets that a file holds: a damaged one would end the process when a value is read.
    table.validate(full=True)
    return table


def refuse_dataset(source: SourceFile, settings: FilesSettings) -> str:
    """Why a path is no saved dataset."""
    if not source.is_folder:
        return "not a folder"
    return "" if any((source.path / name).is_file() for name in (_STATE, _SPLITS)) else f"a folder without {_STATE} or {_SPLITS}"


def read_dataset(sources: Sequence[SourceFile], settings: FilesSettings) -> Records:
    """Images and captions of saved datasets.

    Raises:
        CorpusError: A file is damaged, a column is missing or of an unusable type, or what rows refuse.
    """
    found = collector_for(sources, settings)
    for source in sources:
        reason = refuse_dataset(source, settings)
        if reason:
            raise CorpusError(f"{source.path}: {reason}", expected="what `Dataset.save_to_disk` wrote", do="check files.paths")
        if (source.path / _SPLITS).is_file():
            for split in _listed(source.path / _SPLITS, "splits"):
                _read_one(found, source.path / split, source.split or split, settings)
        else:
            _read_one(found, source.path, source.split, settings)
    return found.finish()


def _read_one(found: Collector, folder: Path, split: str | None, settings: FilesSettings) -> None:
    state = folder / _STATE
    if _json(state).get("_indices_data_files"):
        raise CorpusError(f"{state}: an old file of indices", expected="plain rows", do="load the dataset and save it again")
    row_number = 0
    for name in _listed(state, "_data_files"):
        path = folder / name
        try:
            table = _mapped(path, stamp(path))
            columns = need_columns(table.column_names, settings.columns, str(path))
            reader = RowReader(found, columns, settings)
            for row in _rows(path, table.select([name for name in columns if name]), columns.image or ""):
                where = f"{folder}: row {row_number}"
                reader.add(Row(where, row, f"{split or folder.name}-{row_number:08d}"), split)
                row_number += 1
        except CorpusError:
            raise
        except _DAMAGE as error:
            raise _damaged(path, error) from None


def _rows(path: Path, table: pa.Table, image: str) -> Iterator[dict[str, Any]]:
    """Rows as plain values; the image as a cell where its bytes are there, as its path otherwise."""
    cells = table.column(image)
    stored = pc.is_valid(_files(cells)) if is_bytes(cells.type) or is_struct(cells.type) else None
    if stored is not None:
        table = table.set_column(table.column_names.index(image), image, _paths(cells))
    for start in range(0, table.num_rows, _ROWS):
        rows = table.slice(start, _ROWS).to_pylist()
        for number, row in enumerate(rows, start):
            if stored is not None and stored[number].as_py():
                row[image] = ArrowCell(path.absolute(), image, number)
            yield row


def _files(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.struct_field(cells, "bytes") if is_struct(cells.type) else cells


def _paths(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    if is_struct(cells.type) and cells.type.get_field_index("path") >= 0:
        return pc.struct_field(cells, "path")
    return pa.chunked_array([pa.nulls(len(cells), pa.string())])


def _json(path: Path) -> dict[str, Any]:
    value = SourceFile(path).json
    if not isinstance(value, dict):
        raise CorpusError(f"{path}: no JSON object", expected="what `save_to_disk` wrote", do="save the dataset again")
    return value


def _listed(path: Path, key: str) -> list[str]:
    """Names of folders or files beside a JSON file, which it lists."""
    listed = _json(path).get(key)
    names = [entry.get("filename") if isinstance(entry, dict) else entry for entry in listed] if isinstance(listed, list) else []
    if not names or not all(isinstance(name, str) and name and Path(name).name == name for name in names):
        raise CorpusError(f"{path}: no list `{key}` of names", expected="what `save_to_disk` wrote", do="save the dataset again")
    return [str(name) for name in names]


def _damaged(path: Path, error: Exception) -> CorpusError:
    return CorpusError(
        f"{path}: cannot be read as an Arrow stream ({type(error).__name__}: {' '.join(str(error).split())[:120]})",
        expected="what `save_to_disk` wrote",
        do="save the dataset again",
    )


DATASETS = Format("datasets", "a saved Hugging Face dataset", refuse_dataset, read_dataset)
