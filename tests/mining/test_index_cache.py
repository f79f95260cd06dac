"""The cache of index files does not grow for ever: the least recently used go, and the output says how much that was."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from cprd_pipeline.mining import index_cache
from cprd_pipeline.mining import run as stage
from cprd_pipeline.mining.index_settings import IndexSettings
from cprd_pipeline.mining.indexes import make_search
from cprd_pipeline.mining.search import Excluded, Search
from tests.mining.test_mine import mine_settings
from tests.tiny_encoders import simple_corpus

VECTORS = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)


def search(cache: Path, identity: str) -> Search:
    """A search whose index is kept under an identity of the vectors."""
    index = IndexSettings(kind="hnsw", hnsw_m=4)
    return make_search(VECTORS, index, identity=identity, cache=cache, query_block=8, index_block=100, gpus=())


def made(cache: Path, identity: str, used: float) -> list[Path]:
    """The files of a new index that was last used at a time."""
    before = set((cache / "indexes").glob("*"))
    search(cache, identity)
    files = sorted(set((cache / "indexes").glob("*")) - before)
    for path in files:
        os.utime(path, (used, used))
    return files


def nothing_excluded(queries: int = 1) -> Excluded:
    """Queries that may find everything."""
    return Excluded(np.zeros(queries + 1, dtype=np.int64), np.empty(0, dtype=np.int64))


def test_the_least_recently_used_index_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the oldest: one that a later run searched in stays. Both files go, and their size is told; a lost half goes too."""
    monkeypatch.setattr(index_cache, "KEPT", 3)
    files = [made(tmp_path, str(number), used=1000.0 + number) for number in range(3)]
    assert all(len(pair) == 2 for pair in files)
    assert search(tmp_path, "0").describe()["reused"]
    half = tmp_path / "indexes" / "left.faiss"
    half.write_bytes(b"of a killed run")
    os.utime(half, (0, 0))
    sizes = [path.stat().st_size for path in [*files[1], half]]
    new = search(tmp_path, "new").describe()
    assert new["freed_bytes"] == sum(sizes)
    assert not new["reused"]
    left = set((tmp_path / "indexes").glob("*"))
    assert left >= {*files[0], *files[2]}
    assert len(left) == 6
    assert search(tmp_path, "new").describe()["freed_bytes"] == 0


def test_an_index_that_was_just_made_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where other machines' clocks are ahead."""
    monkeypatch.setattr(index_cache, "KEPT", 1)
    made(tmp_path, "from tomorrow", used=time.time() + 86_400)
    assert search(tmp_path, "new").top(VECTORS[:1], 3, nothing_excluded()).counts.tolist() == [3]
    assert search(tmp_path, "new").describe()["reused"]
    assert len(list((tmp_path / "indexes").glob("*.faiss"))) == 1


def test_an_open_index_is_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run goes on in an index that another run removes."""
    monkeypatch.setattr(index_cache, "KEPT", 1)
    old = search(tmp_path, "old")
    size = sum(path.stat().st_size for path in (tmp_path / "indexes").iterdir())
    expected = old.top(VECTORS, 5, nothing_excluded(len(VECTORS)))
    assert search(tmp_path, "new").describe()["freed_bytes"] == size
    found = old.top(VECTORS, 5, nothing_excluded(len(VECTORS)))
    assert np.array_equal(found.positions, expected.positions)


def test_the_output_says_what_was_freed(tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of the table, only in a run that removed something."""
    corpus = simple_corpus(tmp_path / "corpus", 8)
    index = {"kind": "hnsw", "hnsw_m": 4}
    first = stage.run(mine_settings(tmp_path, corpus, clip_folder, index=index))
    assert "old indexes removed" not in dict(first.table)
    monkeypatch.setattr(index_cache, "KEPT", 1)
    again = stage.run(mine_settings(tmp_path, corpus, clip_folder, index=index | {"hnsw_m": 5}))
    freed = sum(found["freed_bytes"] for found in again.results["indexes"].values())
    assert freed > 0
    assert dict(again.table)["old indexes removed"] == f"{freed:,} bytes"
