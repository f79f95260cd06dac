"""Index files in the cache: built once for the same vectors and recipe, read again by later runs."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cprd_pipeline.errors import MachineError
from cprd_pipeline.mining.faiss_loader import load_faiss
from cprd_pipeline.mining.index_cache import mark_used, remove_oldest
from cprd_pipeline.mining.rescoring import Vectors
from cprd_pipeline.progress import progress_bar
from cprd_pipeline.store.atomic import checksum, write_file, write_json
from cprd_pipeline.store.fingerprint import json_digest

# Vectors added at once; no setting, since it shapes the bits of a cell's choice.
_ADD_BLOCK = 65_536


@runtime_checkable
class Recipe(Protocol):
    """How an index is built."""

    @property
    def add_threads(self) -> int | None:
        """Threads to add vectors with; null is as many as FAISS has."""

    def as_json(self) -> dict[str, Any]:
        """Everything that shapes the index, the vectors aside."""

    def train(self, vectors: Vectors) -> Any:
        """An index that is ready to be filled."""


@dataclass(frozen=True)
class StoredIndex:
    """An index and its file.

    Args:
        index: FAISS's; the cells of an IVF index stay in the file and are read as they are needed.
        bytes: Of the file.
        build_seconds: What training and filling took, in the run that did it.
        reused: Whether the file was there already.
        freed_bytes: Of older indexes that were removed for this one; 0 when it was there already.
    """

    index: Any
    bytes: int
    build_seconds: float
    reused: bool
    freed_bytes: int


def stored_index(recipe: Recipe, vectors: Vectors, identity: str, folder: Path) -> StoredIndex:
    """The index of a recipe over vectors, from its file where there is one that is whole.

    The file is `<digest of identity and recipe>.faiss`, beside a `.json` with its checksum, written last. A new one takes the place
    of those that were not used for longest (see `index_cache`).

    Args:
        recipe: How to build it.
        vectors: float32 [N, D].
        identity: Of the vectors and their order.
        folder: Where index files lie.

    Raises:
        MachineError: The file cannot be written.
    """
    name = json_digest({"vectors": identity, "count": len(vectors), "width": vectors.shape[1], "recipe": recipe.as_json()})
    path, record = folder / f"{name}.faiss", folder / f"{name}.json"
    freed = 0
    if reused := _is_whole(path, record):
        mark_used(record)
    else:
        started = time.perf_counter()
        index = _build(recipe, vectors)
        seconds = time.perf_counter() - started
        write_file(path, lambda temporary: _write(index, temporary, folder))
        write_json(record, {"checksum": checksum(path), "build_seconds": round(seconds, 3), "recipe": recipe.as_json()})
        freed = remove_oldest(path)
        # Read back below, so that a first run searches in what later runs search in.
        del index
    faiss = load_faiss()
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    return StoredIndex(index, path.stat().st_size, float(json.loads(record.read_bytes())["build_seconds"]), reused, freed)


def _is_whole(path: Path, record: Path) -> bool:
    """Whether a build was finished and its bytes are still those; what is not whole is built again."""
    try:
        return bool(json.loads(record.read_bytes())["checksum"] == checksum(path))
    except (FileNotFoundError, ValueError):
        return False


def _build(recipe: Recipe, vectors: Vectors) -> Any:
    faiss = load_faiss()
    threads = faiss.omp_get_max_threads()
    with progress_bar("indexing", len(vectors), "vectors") as bar:
        index = recipe.train(vectors)
        try:
            faiss.omp_set_num_threads(recipe.add_threads or threads)
            for start in range(0, len(vectors), _ADD_BLOCK):
                block = vectors[start : start + _ADD_BLOCK]
                index.add(block)
                bar.advance(len(block))
        finally:
            faiss.omp_set_num_threads(threads)
    return index


def _write(index: Any, path: Path, folder: Path) -> None:
    try:
        load_faiss().write_index(index, str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise MachineError(
            f"{folder}: FAISS cannot write an index of {index.ntotal} vectors ({reason})",
            do="free some space, or let CPRD_CACHE name a folder on a larger disk, and run the same command again",
        ) from error
