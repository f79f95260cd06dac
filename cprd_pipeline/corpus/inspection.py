"""Every image is read and decoded once, in worker processes; what a killed run has seen is compared, but not decoded again."""

import io
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cprd_pipeline.corpus.formats.records import ImageRecord
from cprd_pipeline.corpus.images import decode_image
from cprd_pipeline.corpus.originals import read_original
from cprd_pipeline.corpus.roots import Root, read_inside
from cprd_pipeline.corpus.workers import Workers
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.progress import progress_bar
from cprd_pipeline.store.atomic import write_file
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.output import write_parquet
from cprd_pipeline.store.schemas import DIGEST

_CHUNK = 1024  # images that a killed run inspects again at most
_TASK = 16  # images that a worker gets at once: small ones decode faster than they travel

_INSPECTED = pa.schema([pa.field("digest", DIGEST), pa.field("width", pa.int32()), pa.field("height", pa.int32())])


Item = TypeVar("Item")


class Inspected(NamedTuple):
    """What decoding an image told.

    Args:
        digest: Of the file's bytes; empty when it could not be read.
        width: In pixels, after EXIF rotation.
        height: In pixels, after EXIF rotation.
        reason: Why the image cannot be used; empty for a good one.
    """

    digest: bytes
    width: int
    height: int
    reason: str = ""


def inspect_images(images: Sequence[ImageRecord], root: Root, workers: int, state: Path) -> list[Inspected]:
    """Decode all images.

    Args:
        images: The images.
        root: What their paths are relative to.
        workers: Decoding processes; 0 for this one.
        state: Folder of this run's resumable state.

    Raises:
        MachineError: A worker died, the state cannot be written, or a remote root cannot be reached.
    """
    found: list[Inspected] = []
    with Workers(workers, __name__) as pool:
        kept = _unchanged_chunks(images, root, pool, state)
        done = sum(len(chunk) for chunk in kept.values() if chunk)
        # No task reaches over a chunk's end: the chunk would wait for it.
        todo = (task for start, chunk in kept.items() if chunk is None for task in _cut(images[start : start + _CHUNK]))
        fresh = chain.from_iterable(pool.map(partial(_inspect_all, root), todo))
        with progress_bar("decoding", len(images), "images", done=done) as bar:
            for start, chunk in kept.items():
                if chunk is None:
                    chunk = []
                    for seen in islice(fresh, _chunk_size(images, start)):
                        chunk.append(seen)
                        bar.advance()
                    _write_chunk(_chunk_path(state, start), chunk)
                found += chunk
    return found


def files_changed(digests: Sequence[bytes], paths: Sequence[str], rejected: Sequence[str], root: Root, workers: int) -> bool:
    """Whether files are no longer what a corpus was made from; nothing is decoded but what was bad.

    Args:
        digests: Of the corpus' images.
        paths: Their files.
        rejected: Files that were left out; one that decodes now is a change.
        root: What paths are relative to.
        workers: Reading processes; 0 for this one.

    Raises:
        MachineError: A worker died, or a remote root cannot be reached: that says nothing about its files.
    """
    with progress_bar("comparing", len(paths), "images") as bar, Workers(workers, __name__) as pool:
        for before, now in zip(digests, _digest_files(paths, root, pool), strict=True):
            if before != now:
                return True
            bar.advance()
    return any(not inspect(root, ImageRecord("", "", path)).reason for path in rejected)


def inspect(root: Root, image: ImageRecord) -> Inspected:
    """Read and decode one image."""
    content = b""
    try:
        content = read_original(root, image)
        picture = decode_image(content)
    except CorpusError as error:
        return Inspected(bytes_digest(content) if content else b"", 0, 0, error.found)
    return Inspected(bytes_digest(content), picture.width, picture.height)


def _unchanged_chunks(images: Sequence[ImageRecord], root: Root, pool: Workers, state: Path) -> dict[int, list[Inspected] | None]:
    """What an earlier run kept, by the first image of each chunk; None where it kept nothing, or where a file has changed since.

    Digests are compared, not sizes and times: a copy may keep both. Reading is cheap beside decoding.
    """
    kept = {start: _read_chunk(_chunk_path(state, start), _chunk_size(images, start)) for start in range(0, len(images), _CHUNK)}
    # What lies inside of a larger file cannot have changed: that file is an input of the corpus, and the state belongs to it.
    before = {
        start: [(image.path, seen.digest) for image, seen in zip(images[start : start + _CHUNK], chunk, strict=True) if image.path]
        for start, chunk in kept.items()
        if chunk
    }
    current = _digest_files([path for files in before.values() for path, _ in files], root, pool)
    with progress_bar("comparing", sum(map(len, before.values())), "images", shown=any(before.values())) as bar:
        for start, files in before.items():
            if [digest for _, digest in files] != list(islice(current, len(files))):
                kept[start] = None
            bar.advance(len(files))
    return kept


def _inspect_all(root: Root, images: Sequence[ImageRecord]) -> list[Inspected]:
    return [inspect(root, image) for image in images]


def _digest_files(paths: Sequence[str], root: Root, pool: Workers) -> Iterator[bytes]:
    """Digest of each file as it is now; empty of one that is missing or unreadable."""
    return chain.from_iterable(pool.map(partial(_digest_all, root), _cut(paths)))


def _digest_all(root: Root, paths: Sequence[str]) -> list[bytes]:
    return [_digest(root, path) for path in paths]


def _digest(root: Root, path: str) -> bytes:
    try:
        return bytes_digest(read_inside(root, path))
    except CorpusError:
        return b""


def _cut(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The tasks of the workers."""
    return (items[start : start + _TASK] for start in range(0, len(items), _TASK))


def _chunk_path(state: Path, start: int) -> Path:
    return state / "inspected" / f"{start:09d}.parquet"


def _chunk_size(images: Sequence[ImageRecord], start: int) -> int:
    return min(_CHUNK, len(images) - start)


def _write_chunk(path: Path, chunk: list[Inspected]) -> None:
    # A chunk with a bad image is not kept: its file may be mended before the next run.
    if not any(image.reason for image in chunk):
        columns = list(zip(*chunk, strict=True))[:3]
        write_file(path, lambda temporary: write_parquet(temporary, pa.table([list(c) for c in columns], schema=_INSPECTED)))


def _read_chunk(path: Path, size: int) -> list[Inspected] | None:
    """A chunk of an earlier run, or None."""
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()), schema=_INSPECTED)
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    rows = [Inspected(*row.values()) for row in table.to_pylist()]
    return rows if len(rows) == size else None
