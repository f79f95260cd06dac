"""Very many vectors lie in a file: the same numbers, no memory of their size, and nothing left on the disk."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import MachineError
from cprd_pipeline.models import vector_room
from cprd_pipeline.models.embedding_cache import EmbeddingCache
from cprd_pipeline.models.encoder_brought import read_brought
from cprd_pipeline.models.vector_room import room_for
from tests.models.test_encoder_brought import as_arrays, vectors_of
from tests.tiny_encoders import simple_corpus


def in_memory_kb(kind: str) -> int:
    """Of this process: memory of its own (`RssAnon`), or of files (`RssFile`, `RssShmem`)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1])


def test_past_the_bound_the_memory_is_a_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filled to the last number, it is no memory of the process' own; the folder looks empty meanwhile and afterwards."""
    monkeypatch.setattr(vector_room, "IN_MEMORY_BYTES", 1 << 20)
    before = in_memory_kb("RssAnon")
    found = room_for(40_000, 256, tmp_path / "cache")
    found[:] = 1
    assert in_memory_kb("RssAnon") - before < 10_000  # of 40 MB
    assert found.sum(dtype=np.float64) == found.size
    assert list((tmp_path / "cache").iterdir()) == []
    small = room_for(2, 256, tmp_path / "none")
    assert (small.shape, small.dtype) == ((2, 256), np.float32)
    assert not (tmp_path / "none").exists()


def test_both_sources_of_vectors_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache and brought vectors give the same bytes from a file."""
    corpus = Corpus(simple_corpus(tmp_path / "corpus", 10))
    folder = as_arrays(tmp_path / "brought", corpus, vectors_of(10, 0), vectors_of(20, 1))
    cache = EmbeddingCache(tmp_path / "vectors")
    cache.add(corpus.captions.digests, vectors_of(20, 2).astype(np.float32))
    cache.refresh()

    def read() -> list[np.ndarray]:
        sides = (corpus.images, np.arange(10), corpus.captions, np.arange(20))
        return [*read_brought(folder, *sides), cache.gather(corpus.captions.digests[::-1])]

    in_memory = read()
    monkeypatch.setattr(vector_room, "IN_MEMORY_BYTES", 0)
    in_files = read()
    for plain, mapped in zip(in_memory, in_files, strict=True):
        assert isinstance(mapped.base, np.memmap)
        assert np.array_equal(plain, mapped)


def test_a_full_disk_is_said_before_it_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, rather than the signal that kills a process whose mapped file finds no block."""
    monkeypatch.setattr(vector_room, "IN_MEMORY_BYTES", 0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(vector_room.os, "posix_fallocate", full)
    with pytest.raises(MachineError, match="cache: the disk is full; free some space"):
        room_for(10, 10, tmp_path / "cache")
