"""Compaction: the same scores in fewer bytes, at any moment whole, never under somebody's feet."""

import contextlib
import errno
import fcntl
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import deltalake
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.errors import MachineError, StoreError
from cprd_pipeline.store import score_lock
from cprd_pipeline.store.score_check import summary, verify
from cprd_pipeline.store.score_compaction import compact
from cprd_pipeline.store.scores import ScoreStore
from tests.store.score_pairs import Pairs, append, data_files, flip_a_bit, known

IMAGES, CAPTIONS = list(range(6)), list(range(7))
KEYS = [("t", "both"), ("t", "i2t"), ("t", "t2i"), ("u", "both")]
BATCH = st.dictionaries(
    st.tuples(st.sampled_from(IMAGES), st.sampled_from(CAPTIONS)), st.floats(-9, 9, width=32), min_size=1, max_size=12
)
STEP = st.one_of(st.tuples(st.sampled_from(KEYS), BATCH), st.tuples(st.sampled_from(["t", "u", "both"]), st.integers(1, 30)))


@given(st.lists(STEP, max_size=7))
@settings(max_examples=40, deadline=None)
def test_appends_and_compactions_in_any_order_keep_every_score(tmp_path_factory, steps) -> None:
    """Against a dictionary; after the last compaction no key is doubled, all digests are right, and nothing is left to do."""
    store = ScoreStore(str(tmp_path_factory.mktemp("scores") / "store"))
    expected: dict[tuple[str, str], Pairs] = {key: {} for key in KEYS}
    for step in steps:
        if isinstance(step[0], tuple):
            (teacher, direction), batch = step
            append(store, batch, teacher, direction)
            scores = expected[teacher, direction]
            scores.update({pair: min(score, scores.get(pair, score)) for pair, score in batch.items()})
        elif store.table.exists():
            compact(store, ["t", "u"] if step[0] == "both" else [step[0]], step[1])
        for (teacher, direction), scores in expected.items():
            assert known(store, IMAGES, CAPTIONS, teacher, direction) == scores
    if not store.table.exists():
        return
    compact(store, ["t", "u"])
    assert pl.read_delta(store.uri).height == sum(map(len, expected.values()))
    assert [one.doubled for one in summary(store)] == [0] * len(summary(store))
    version = deltalake.DeltaTable(store.uri).version()
    assert compact(store, ["t", "u"]) == ([], 0)
    assert deltalake.DeltaTable(store.uri).version() == version
    check = verify(store)
    assert (check.damaged, check.undigested, check.stray) == ([], 0, 0)


def filled(tmp_path: Path) -> tuple[ScoreStore, Pairs]:
    """Eight files, half of whose rows are doubled, and what they say."""
    store = ScoreStore(str(tmp_path / "store"))
    expected: Pairs = {}
    for number in range(8):
        batch = {(image, caption): float(10 * image + caption + number) for image in range(6) for caption in range(number // 2, 7)}
        append(store, batch)
        expected.update({pair: min(score, expected.get(pair, score)) for pair, score in batch.items()})
    return store, expected


def test_compaction_tells_what_it_did(tmp_path: Path) -> None:
    """Rows, doubles, files; the replaced files are deleted, other files of the user stay."""
    store, expected = filled(tmp_path)
    before = store.count("t")
    notes = tmp_path / "store" / "notes.txt"
    notes.write_text("mine")
    (done,), deleted = compact(store, ["t"], range_rows=20)
    assert (done.rows, done.doubled, done.files_before, deleted) == (len(expected), before - len(expected), 8, 8)
    assert len(data_files(store)) == done.files > 1
    assert done.bytes == sum(file.stat().st_size for file in data_files(store)) < done.bytes_before
    assert notes.read_text() == "mine"


def test_an_unchanged_file_stays_in_the_table(tmp_path: Path) -> None:
    """New scores of one image leave the other ranges as they are; Delta refuses to add and remove one path."""
    store = ScoreStore(str(tmp_path / "store"))
    append(store, {(image, caption): 1.0 for image in range(10) for caption in range(10)})
    compact(store, ["t"], range_rows=40)
    before = set(data_files(store))
    append(store, {(3, 50): 1.0})
    compact(store, ["t"], range_rows=40)
    assert len(before & set(data_files(store))) == len(before) - 1
    assert len(known(store, list(range(10)), list(range(60)))) == 101


def test_a_damaged_file_stops_compaction(tmp_path: Path) -> None:
    """What cannot be read must not be replaced; every file stays where it is."""
    store, _ = filled(tmp_path)
    files = data_files(store)
    flip_a_bit(files[3], 100)
    with pytest.raises(StoreError, match=rf"{files[3].name}: the score store cannot be read \(its bytes changed"):
        compact(store, ["t"])
    assert set(files) <= set(data_files(store))
    assert len(store.table.files("t")) == 8


def test_a_file_that_is_gone_stops_the_clearing(tmp_path: Path) -> None:
    """Of another teacher, too: what looks unneeded may then be needed."""
    store, _ = filled(tmp_path)
    append(store, {(0, 1): 1.0}, "u")
    data_files(store, "u")[0].unlink()
    with pytest.raises(StoreError, match=r"teacher=u/.*the file is gone"):
        compact(store, ["t"])
    assert len(data_files(store)) == 9


@pytest.mark.parametrize("holder", ["writer", "reader"])
def test_compaction_is_refused_while_somebody_is_there(tmp_path: Path, holder: str) -> None:
    """One clear line, nothing changed; afterwards it goes on."""
    store, expected = filled(tmp_path)
    with store.shared(make=holder == "writer"):
        with pytest.raises(StoreError, match=r"another process writes to the score store or reads it; .*wait until it is done"):
            compact(store, ["t"])
        assert len(data_files(store)) == 8
    assert compact(store, ["t"])[1] == 8
    assert known(store, IMAGES, CAPTIONS) == expected


def test_a_compaction_keeps_others_out(tmp_path: Path) -> None:
    """A second one is refused; a folder that nobody ever wrote to can be read all the same."""
    store, _ = filled(tmp_path)
    with score_lock.alone(tmp_path / "store"), pytest.raises(StoreError, match="another process"):
        compact(store, ["t"])
    (tmp_path / "store" / score_lock.LOCK).unlink()
    assert store.count("t") > 0
    assert known(store, [0], [0]) == {(0, 0): 0.0}


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_disk_without_locks_serves_all_but_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    """Some network file systems, on which outputs are made as well."""

    def refuse(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", refuse)
    store, expected = filled(tmp_path)
    assert known(store, IMAGES, CAPTIONS) == expected
    with pytest.raises(StoreError, match=rf"store: this file system knows no locks \({os.strerror(reason)}\); .*compact a copy"):
        compact(store, ["t"])
    assert len(data_files(store)) == 8
    assert known(store, IMAGES, CAPTIONS) == expected


def test_an_object_store_keeps_its_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through deltalake's file system, as there is no folder: everything works but locks and deleting."""
    monkeypatch.setattr("cprd_pipeline.store.score_disk.local_folder", lambda uri: None)
    store, expected = filled(tmp_path)
    assert store.table.disk.folder is None
    (done,), deleted = compact(store, ["t"], range_rows=20)
    assert (done.files_before, deleted) == (8, 0)
    assert len(data_files(store)) == 8 + done.files
    assert known(store, IMAGES, CAPTIONS) == expected
    append(store, {(image, 99): 1.0 for image in range(80_000)}, "large")  # past the buffers of pyarrow's streams
    assert data_files(store, "large")[0].stat().st_size > 1 << 20
    assert verify(store).damaged == []
    next(file for file in data_files(store) if "-of-" in file.name).unlink()
    with pytest.raises(StoreError, match=r"the score store cannot be read \(the file is gone\)"):
        known(store, IMAGES, CAPTIONS)
    assert [wrong for _, wrong in verify(store).damaged] == ["the file is gone"]


def test_two_compactions_without_a_lock_do_not_double_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an object store the second one fails, for the files that it read are no longer in the table."""
    monkeypatch.setattr("cprd_pipeline.store.score_disk.local_folder", lambda uri: None)
    store, expected = filled(tmp_path)
    old = store.table.files("t")
    compact(store, ["t"])
    with pytest.raises(StoreError, match="somebody else replaced the same files; run the same command again"):
        store.table.commit([], old)
    assert pl.read_delta(store.uri).height == len(expected)


def test_file_addresses_are_folders(tmp_path: Path) -> None:
    """A file:// address is locked and cleared like a path."""
    _, expected = filled(tmp_path)
    again = ScoreStore((tmp_path / "store").as_uri())
    assert compact(again, ["t"])[1] == 8
    assert known(again, IMAGES, CAPTIONS) == expected


def test_a_full_disk_leaves_the_table_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the new files are written, or while the rows wait on the disk to be sorted."""
    store, expected = filled(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for owner, name in (("os", "fsync"), ("pathlib.Path", "write_bytes")):
        with monkeypatch.context() as patch:
            patch.setattr(f"{owner}.{name}", full)
            with pytest.raises(MachineError, match="the disk is full; free some space and run the same command again"):
                compact(store, ["t"], range_rows=20)
        assert len(store.table.files("t")) == 8
        assert known(store, IMAGES, CAPTIONS) == expected
    assert compact(store, ["t"], range_rows=20)[1] >= 8
    assert not list((tmp_path / "store").glob("_sorting*"))


_KILLED = """
import os, signal, sys
import deltalake
from cprd_pipeline.store.score_compaction import compact
from cprd_pipeline.store.scores import ScoreStore
left = int(sys.argv[2])

def deadly(act):
    def step(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*arguments, **options)
    return step

os.fsync, os.replace, os.unlink, os.mkdir = map(deadly, (os.fsync, os.replace, os.unlink, os.mkdir))
table = deltalake.DeltaTable
table.create_write_transaction, table.create_checkpoint = map(deadly, (table.create_write_transaction, table.create_checkpoint))
compact(ScoreStore(sys.argv[1]), ["t"], range_rows=60)
print(left)
"""


def test_a_compaction_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """At every seventh of its steps on the disk; another one then finishes the work and clears up."""
    moment, killed = 1, 0
    while True:
        (tmp_path / str(moment)).mkdir()
        store, expected = filled(tmp_path / str(moment))
        before = store.count("t")
        done = subprocess.run([sys.executable, "-c", _KILLED, store.uri, str(moment)], capture_output=True, text=True, check=False)
        assert known(store, IMAGES, CAPTIONS) == expected
        assert pl.read_delta(store.uri).height in (len(expected), before)
        compact(store, ["t"], range_rows=60)
        assert known(store, IMAGES, CAPTIONS) == expected
        assert pl.read_delta(store.uri).height == len(expected)
        assert verify(store).stray == 0
        assert not list(Path(store.uri).glob("_sorting*"))
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        moment, killed = moment + 7, killed + 1
    assert killed > 3


def _append_many(uri: str, writer: int, barrier) -> None:
    store = ScoreStore(uri)
    barrier.wait()
    for number in range(12):
        append(store, {(writer, 10 * number + caption): float(writer) for caption in range(10)})


def test_writers_and_compactions_at_once_lose_nothing(tmp_path: Path) -> None:
    """Two writers, while this process compacts again and again, refused or not."""
    store, _ = filled(tmp_path)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    writers = [context.Process(target=_append_many, args=(store.uri, writer, barrier)) for writer in (11, 12)]
    for writer in writers:
        writer.start()
    barrier.wait()
    compacted = 0
    while any(writer.is_alive() for writer in writers):
        with contextlib.suppress(StoreError):  # refused
            compacted += len(compact(store, ["t"])[0])
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    compacted += len(compact(store, ["t"])[0])
    assert compacted >= 1
    found = known(store, [11, 12], list(range(120)))
    assert found == {(writer, caption): float(writer) for writer in (11, 12) for caption in range(120)}
    assert verify(store).damaged == []
