"""Embeddings that the user brings: `embeddings:FOLDER` in the place of an encoder's name.

The folder holds both sides, each in one of two forms, in any order of rows:

- `images.npy` and `captions.npy`, floating point [N, D], beside them `images.ids.txt` and `captions.ids.txt` in UTF-8 with one
  id a line, in the order of the rows;
- `images.parquet` and `captions.parquet` with a column `vector` (a list of D numbers) and either `id` or `digest` (16-byte
  BLAKE2b of the image's file or of the caption's text, as in the corpus; each once, it serves all items of that content).

Vectors need not have length one. Every id and digest must be in the corpus, and every item that is asked for must have a vector.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cprd_pipeline.corpus.reader import Items, Rows, column_digests
from cprd_pipeline.errors import ModelError, first_line
from cprd_pipeline.models.vector_room import room_for
from cprd_pipeline.store.atomic import checksum
from cprd_pipeline.store.fingerprint import DIGEST_BYTES, digest_keys, json_digest
from cprd_pipeline.store.folder import cache_folder
from cprd_pipeline.store.places import MANIFEST

PREFIX = "embeddings:"
"""Before the folder, in a setting that names an encoder."""

Side = Literal["images", "captions"]

ADAPTER_VERSION = 1
"""Raised whenever the same files would give other embeddings through this file; part of the fingerprint."""

_SIDES: tuple[Side, ...] = ("images", "captions")
_FORMS = "images.npy with images.ids.txt, or images.parquet (captions likewise)"
_TAKE = "take them from images.parquet and captions.parquet of the corpus"
_BLOCK = 65_536


@dataclass(frozen=True)
class _SideFiles:
    """Vectors of one side as they were brought, and for each the keys of its items.

    Args:
        path: The file of the vectors, for messages.
        vectors: Floating point [N, D].
        keys: Ids (strings), or digests (binary values of 16 bytes): [N].
        by_digest: Which of the two.
    """

    path: Path
    vectors: npt.NDArray[Any]
    keys: pa.Array
    by_digest: bool


def brought_folder(name: str) -> Path | None:
    """The folder that a setting means by `embeddings:FOLDER`; None when it names a model."""
    return Path(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None


def refuse_vectors(name: str, folder: Path) -> None:
    """Refuse a folder of vectors that was named without the prefix.

    Raises:
        ModelError: The folder holds brought embeddings, and no model.
    """
    holds = any((folder / file).is_file() for file in ("images.npy", "images.parquet"))
    if holds and not (folder / "config.json").exists() and not (folder / MANIFEST).exists():
        raise ModelError(f"{name}: holds vectors, not a model", expected="a dual encoder", do=f"write {PREFIX}{name} to use them")


def brought_fingerprint(folder: Path) -> str:
    """Digest of the bytes of all files.

    Raises:
        ModelError: A file is missing.
    """
    files = {file.name: checksum(file) for side in _SIDES for file in _files(folder, side)}
    return json_digest({"files": files, "facts": {"role": "brought_embeddings", "adapter": ADAPTER_VERSION}})


def read_brought(
    folder: Path, images: Items, image_rows: Rows, captions: Items, caption_rows: Rows
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Unit vectors of rows of a corpus.

    Args:
        folder: Where the files lie.
        images: The corpus' images.
        image_rows: int64 [I].
        captions: The corpus' captions.
        caption_rows: int64 [C].

    Returns:
        Of the images float32 [I, D], and of the captions float32 [C, D].

    Raises:
        ModelError: A file is missing or is not what it should be, or the sides differ in D; ids do not resolve, occur twice or
            are too few; a vector is zero or not finite. The message names the first of them.
        MachineError: There is no room on the disk for very many vectors.
    """
    first, second = (_read_side(folder, side) for side in _SIDES)
    if first.vectors.shape[1] != second.vectors.shape[1]:
        raise ModelError(
            f"{second.path}: vectors of {second.vectors.shape[1]} numbers",
            expected=f"{first.vectors.shape[1]}, as in {first.path.name}",
            do="embed images and captions with one model",
        )
    return _gather(first, images, image_rows), _gather(second, captions, caption_rows)


def _files(folder: Path, side: Side) -> list[Path]:
    """The files of a side: vectors first."""
    plain, ids, table = folder / f"{side}.npy", folder / f"{side}.ids.txt", folder / f"{side}.parquet"
    if plain.is_file() and table.is_file():
        raise ModelError(f"{folder}: {plain.name} and {table.name}", expected="one of them", do="remove the other")
    files = [table] if table.is_file() else [plain, ids]
    for file in files:
        if not file.is_file():
            raise ModelError(f"{folder}: no {file.name} in it", expected=_FORMS, do="add the file, or mend the folder's name")
    return files


def _read_side(folder: Path, side: Side) -> _SideFiles:
    files = _files(folder, side)
    try:
        found = _read_table(files[0]) if files[0].suffix == ".parquet" else _read_arrays(*files)
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        reason = first_line(error)
        raise ModelError(f"{files[0]}: cannot be read ({reason})", expected=_FORMS, do="write the file again") from error
    if found.vectors.ndim != 2 or not np.issubdtype(found.vectors.dtype, np.floating):
        raise ModelError(
            f"{found.path}: {found.vectors.dtype} of shape {list(found.vectors.shape)}",
            expected="floating point, one row an item",
            do="save an array of float32 with two axes",
        )
    if len(found.vectors) != len(found.keys):
        raise ModelError(
            f"{found.path}: {len(found.vectors)} rows and {len(found.keys)} ids in {files[-1].name}",
            expected="one id a row",
            do="write both files again, in one order",
        )
    return found


def _read_arrays(plain: Path, ids: Path) -> _SideFiles:
    text = ids.read_text(encoding="utf-8")
    # Not splitlines(), which would also cut an id at a form feed or a line separator.
    lines = text.removesuffix("\n").split("\n") if text else []
    if "\r" in text:
        lines = [line.removesuffix("\r") for line in lines]
    vectors = np.load(plain, mmap_mode="r", allow_pickle=False)
    if not isinstance(vectors, np.ndarray):
        vectors.close()
        raise ValueError("an archive of arrays")
    return _SideFiles(plain, vectors, pa.array(lines, pa.string()), False)


def _read_table(path: Path) -> _SideFiles:
    names = pq.read_schema(path).names
    keys = [name for name in ("id", "digest") if name in names]
    if len(keys) != 1 or "vector" not in names:
        raise ModelError(f"{path}: columns {', '.join(names)}", expected="vector, and one of id and digest", do="rename them so")
    table = pq.read_table(path, columns=[*keys, "vector"], memory_map=True)
    found = table.schema.field("vector").type
    if not (pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)):
        raise ModelError(f"{path}: vector is of type {found}", expected="a list of numbers", do="write one list a row")
    if not len(table):
        raise ModelError(f"{path}: no rows in it", expected="one an item", do="write the file again")
    by_digest = keys == ["digest"]
    values = table[keys[0]].to_pylist()
    _check_keys(path, values, by_digest)
    kind = pa.binary(DIGEST_BYTES) if by_digest else pa.string()
    return _SideFiles(path, _stack(path, table["vector"], values), pa.array(values, kind), by_digest)


def _stack(path: Path, vectors: pa.ChunkedArray, values: list[Any]) -> npt.NDArray[Any]:
    """Lists as rows; chunk by chunk, since the offsets of one large array would overflow."""
    widths = np.concatenate([chunk.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False) for chunk in vectors.chunks])
    flat = [chunk.flatten() for chunk in vectors.chunks]
    odd = np.flatnonzero((widths != widths[0]) | (widths < 1))
    if len(odd) or any(part.null_count for part in flat):
        where = f"vector of {values[odd[0]]!r}" if len(odd) else "column vector"
        raise ModelError(
            f"{path}: the {where} lacks numbers or has too many", expected="all of one length", do="embed these items again"
        )
    stacked: npt.NDArray[Any] = np.concatenate([part.to_numpy(zero_copy_only=False) for part in flat])
    return stacked.reshape(len(values), -1)


def _check_keys(path: Path, values: list[Any], by_digest: bool) -> None:
    kind = bytes if by_digest else str
    for value in values:
        if not isinstance(value, kind) or (by_digest and len(value) != DIGEST_BYTES):
            raise ModelError(
                f"{path}: {value!r} among its {'digests' if by_digest else 'ids'}",
                expected=f"binary values of {DIGEST_BYTES} bytes" if by_digest else "strings",
                do=_TAKE,
            )


def _gather(found: _SideFiles, items: Items, rows: Rows) -> npt.NDArray[np.float32]:
    places = _places_by_digest(found, items) if found.by_digest else _places_by_id(found, items)
    wanted = places[rows]
    lacking = np.flatnonzero(wanted < 0)
    if len(lacking):
        raise ModelError(
            f"{found.path}: no vector for {len(lacking)} of {len(rows)} items (first: {items.ids[rows[lacking[0]]]!r})",
            expected="one for each item that is asked for",
            do="add rows for them",
        )
    vectors = room_for(len(rows), found.vectors.shape[1], cache_folder())
    for start in range(0, len(rows), _BLOCK):
        block = found.vectors[wanted[start : start + _BLOCK]].astype(np.float64)
        vectors[start : start + len(block)] = _unit(block, found, items, rows[start:])
    return vectors


def _unit(block: npt.NDArray[np.float64], found: _SideFiles, items: Items, rows: Rows) -> npt.NDArray[np.float64]:
    with np.errstate(over="ignore"):
        lengths: npt.NDArray[np.float64] = np.linalg.norm(block, axis=1)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        what = "zero" if lengths[bad[0]] == 0 else "not finite"
        raise ModelError(
            f"{found.path}: the vector of {items.ids[rows[bad[0]]]!r} is {what}",
            expected="finite vectors, not zero",
            do="embed this item again",
        )
    return block / lengths[:, None]


def _places_by_id(found: _SideFiles, items: Items) -> Rows:
    """Row of the file for each item of the corpus, -1 where it has none; int64 [N]."""
    rows = pc.index_in(found.keys, value_set=items.arrow_ids)
    if rows.null_count:
        raise _unknown(found, found.keys.filter(pc.is_null(rows))[0].as_py())
    places = np.full(len(items), -1, dtype=np.int64)
    order = np.arange(len(found.keys))
    places[rows.to_numpy()] = order
    if len(repeated := np.flatnonzero(places[rows.to_numpy()] != order)):
        raise _twice(found, found.keys[int(repeated[0])].as_py())
    return places


def _places_by_digest(found: _SideFiles, items: Items) -> Rows:
    """As `_places_by_id`; items of one content share a row."""
    if not len(found.keys):
        return np.full(len(items), -1, dtype=np.int64)
    keys = digest_keys(column_digests(found.keys))
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    if len(repeated := np.flatnonzero(ordered[1:] == ordered[:-1])):
        raise _twice(found, found.keys[int(order[repeated[0]])].as_py().hex())
    wanted = digest_keys(items.digests)
    if len(unknown := np.flatnonzero(~np.isin(keys, wanted))):
        raise _unknown(found, found.keys[int(unknown[0])].as_py().hex())
    entries = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where(ordered[entries] == wanted, order[entries], -1)


def _unknown(found: _SideFiles, key: str) -> ModelError:
    return ModelError(f"{found.path}: {key!r} is not in the corpus", expected="ids or digests of this corpus", do=_TAKE)


def _twice(found: _SideFiles, key: str) -> ModelError:
    if found.by_digest:
        # A user who takes every row of the corpus' table meets this where texts or pictures are equal.
        return ModelError(
            f"{found.path}: the digest {key!r} occurs twice",
            expected="one vector a digest, which all items of equal content share",
            do="keep the first row of each digest",
        )
    return ModelError(f"{found.path}: {key!r} occurs twice", expected="one vector an item", do="keep one row of each id")
