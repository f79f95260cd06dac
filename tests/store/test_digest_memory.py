"""Remembered digests: never another one than the files have, computed once while they stay as they are."""

import hashlib
import mmap
import os
import time
from pathlib import Path

import pytest

from cprd_pipeline.store import digest_memory
from cprd_pipeline.store.atomic import checksum
from cprd_pipeline.store.digest_memory import remembered_checksum, remembered_digest
from cprd_pipeline.store.folder import cache_folder


class _Counter:
    """Digests a file and counts how often."""

    def __init__(self, file: Path) -> None:
        self.file, self.times = file, 0

    def __call__(self) -> str:
        self.times += 1
        return checksum(self.file)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large, last changed long ago as far as its memory can tell."""
    monkeypatch.setattr(digest_memory, "WORTH_BYTES", 4)
    monkeypatch.setattr(digest_memory, "_SETTLED_NS", -1)
    file = tmp_path / "weights"
    file.write_bytes(b"content")
    return file


def test_an_unchanged_file_is_digested_once(large: Path) -> None:
    """And the digest is the right one, also through a link and another spelling of its path."""
    counter = _Counter(large)
    link = large.with_name("link")
    link.symlink_to(large)
    paths = (large, large, large.parent / "." / large.name, link)
    assert {remembered_digest("test", [path], counter) for path in paths} == {checksum(large)}
    assert counter.times == 1


def _rewritten(file: Path) -> None:
    file.write_bytes(b"CONTENT")


def _rewritten_with_its_old_times(file: Path) -> None:
    found = file.stat()
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


def _replaced(file: Path) -> None:
    found = file.stat()
    other = file.with_name("other")
    other.write_bytes(b"CONTENT")
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(file)


def _longer(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"!")


@pytest.mark.parametrize("change", [_rewritten, _rewritten_with_its_old_times, _replaced, _longer])
def test_a_changed_file_is_digested_again(large: Path, change: object) -> None:
    """Whatever was done to hide it: of equal size, with its old times, or another file in its place."""
    assert callable(change)
    before = remembered_checksum(large)
    # Beyond the clock's step, which a real run waits out.
    time.sleep(0.02)
    change(large)
    assert remembered_checksum(large) == checksum(large) != before


def test_kinds_are_remembered_apart(large: Path) -> None:
    """A new way of digesting takes nothing from the old one."""
    assert remembered_digest("one", [large], lambda: "1") == "1"
    assert remembered_digest("two", [large], lambda: "2") == "2"
    assert remembered_digest("one", [large], lambda: "3") == "1"


def test_what_has_just_changed_is_not_remembered(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change again within the same step of the file system's clock."""
    monkeypatch.setattr(digest_memory, "_SETTLED_NS", 3_600_000_000_000)
    counter = _Counter(large)
    for _ in range(2):
        remembered_digest("test", [large], counter)
    assert counter.times == 2
    assert not cache_folder().exists()


def test_what_changes_while_it_is_read_is_not_remembered(large: Path) -> None:
    """Its digest may be of neither state."""

    def compute() -> str:
        _longer(large)
        return "of a file that was half written"

    remembered_digest("test", [large], compute)
    assert remembered_digest("test", [large], lambda: checksum(large)) == checksum(large)


def test_small_files_are_not_remembered(tmp_path: Path) -> None:
    """The demo's models leave nothing behind."""
    file = tmp_path / "weights"
    file.write_bytes(b"content")
    os.utime(file, ns=(0, 0))
    assert remembered_checksum(file) == checksum(file)
    assert not cache_folder().exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"files": 3, "digest": "0"}', b"\xff"])
def test_a_damaged_memory_is_made_again(large: Path, content: bytes) -> None:
    """It is a cache."""
    remembered_checksum(large)
    (memory,) = (cache_folder() / "digests").iterdir()
    memory.write_bytes(content)
    assert remembered_checksum(large) == checksum(large)
    counter = _Counter(large)
    assert remembered_digest("checksum", [large], counter) == checksum(large)
    assert counter.times == 0


def test_what_is_written_through_a_mapping_is_seen(large: Path) -> None:
    """Once the page was clean, its next change moves the file's times."""
    with large.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        for number in range(3):
            mapped[0] = number
            time.sleep(0.02)
            assert remembered_checksum(large) == hashlib.blake2b(bytes([number]) + b"ontent", digest_size=16).hexdigest()
            time.sleep(0.02)


@pytest.mark.parametrize("trouble", ["cache is a file", "memory is a folder"])
def test_a_digest_needs_no_memory(large: Path, tmp_path: Path, trouble: str) -> None:
    """The file is what matters."""
    if trouble == "cache is a file":
        cache_folder().write_text("")
    else:
        remembered_checksum(large)
        (memory,) = (cache_folder() / "digests").iterdir()
        memory.unlink()
        memory.mkdir()
    assert remembered_checksum(large) == checksum(large)


def test_what_cannot_be_read_is_said_by_who_digests_it(large: Path) -> None:
    """Gone, or a link to nowhere, or with a name that is no text."""
    with pytest.raises(FileNotFoundError):
        remembered_checksum(large.with_name("gone"))
    odd = Path(os.fsdecode(os.fsencode(large.parent) + b"/\xff"))
    odd.write_bytes(b"content")
    assert remembered_checksum(odd) == remembered_checksum(odd) == checksum(large)


def test_a_large_file_is_remembered_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the module's own limits: beyond 64 MiB, two seconds after its last change."""
    file = tmp_path / "weights"
    with file.open("wb") as stream:
        stream.truncate(digest_memory.WORTH_BYTES)
    began = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: began + 3_000_000_000)
    known = remembered_checksum(file)
    monkeypatch.setattr(digest_memory, "checksum", None)
    assert remembered_checksum(file) == known
