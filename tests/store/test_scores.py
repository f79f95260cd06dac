"""The score store: appended whole, found by content, never silently repaired."""

import errno
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import deltalake
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.errors import CprdError, StoreError
from cprd_pipeline.store.score_disk import check_store_place
from cprd_pipeline.store.scores import ScoreStore, default_store
from tests.store.score_pairs import append, data_files, digests, flip_a_bit, known


@given(
    st.lists(st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 5)), st.floats(-9, 9, width=32), min_size=1), max_size=4),
    st.permutations(range(6)),
    st.permutations(range(4)),
)
@settings(max_examples=25, deadline=None)
def test_what_was_appended_is_found_by_content(tmp_path_factory, batches, images, captions) -> None:
    """Whatever the order and extent of the corpus; a key that occurs twice counts with its lower score."""
    store = ScoreStore(str(tmp_path_factory.mktemp("scores") / "store"))
    expected: dict[tuple[int, int], float] = {}
    for batch in batches:
        append(store, batch)
        for pair, score in batch.items():
            expected[pair] = min(score, expected.get(pair, score))
    inside = {pair: score for pair, score in expected.items() if pair[1] < 4}
    assert known(store, images, captions) == inside
    # A batch that is byte for byte the same again is the same file.
    assert store.count("t") == sum(map(len, {tuple(sorted(batch.items())): batch for batch in batches}.values()))


def test_teachers_and_directions_are_apart(tmp_path: Path) -> None:
    """The same pair may have four scores."""
    store = ScoreStore(str(tmp_path / "store"))
    keys = [("t", "both"), ("t", "i2t"), ("t", "t2i"), ("u", "both")]
    for number, (teacher, direction) in enumerate(keys):
        append(store, {(0, 1): float(number)}, teacher, direction)
    for number, (teacher, direction) in enumerate(keys):
        assert known(store, [0], [1], teacher, direction) == {(0, 1): float(number)}
    assert (store.count("t"), store.count("u"), store.count("v")) == (3, 1, 0)


def test_a_store_that_is_not_there_knows_nothing(tmp_path: Path) -> None:
    """Reading makes no folder."""
    store = ScoreStore(str(tmp_path / "store"))
    assert known(store, [0], [1]) == {}
    assert store.count("t") == 0
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_with_its_whole_batch(tmp_path: Path, bad: float) -> None:
    """The message names the pair; nothing is stored."""
    store = ScoreStore(str(tmp_path / "store"))
    pair = f"image {digests([3]).tobytes().hex()}, caption {digests([4]).tobytes().hex()}"
    with pytest.raises(StoreError, match=f"1 of 2 teacher scores are not finite .*{pair}.*nothing of this part was stored"):
        append(store, {(1, 2): 0.5, (3, 4): bad})
    assert known(store, [1, 3], [2, 4]) == {}


def _write_many(uri: str, writer: int, barrier) -> None:
    store = ScoreStore(uri)
    barrier.wait()
    for number in range(6):
        append(store, {(writer, 10 * number + caption): float(writer) for caption in range(10)})


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Appends of two processes to one new store, at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    uri = str(tmp_path / "store")
    writers = [context.Process(target=_write_many, args=(uri, writer, barrier)) for writer in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    found = known(ScoreStore(uri), [1, 2], list(range(60)))
    assert found == {(writer, caption): float(writer) for writer in (1, 2) for caption in range(60)}


DAMAGE = {
    "truncate": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "overwrite": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "flip": lambda file: flip_a_bit(file, file.stat().st_size // 3),
    "remove": Path.unlink,
}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("truncate", "bytes instead of"),
        ("overwrite", "its bytes changed"),
        ("flip", "its bytes changed"),
        ("remove", "the file is gone"),
    ],
)
def test_a_damaged_data_file_is_an_error_with_a_next_step(tmp_path: Path, damage: str, reason: str) -> None:
    """Not fewer scores: they would be bought again without a word. Files of another teacher are not even opened."""
    store = ScoreStore(str(tmp_path / "store"))
    for teacher in ("t", "u"):
        append(store, {(0, caption): 1.0 for caption in range(50)}, teacher)
    (file,) = data_files(store)
    DAMAGE[damage](file)
    wanted = rf"store/teacher=t/{file.name}: the score store cannot be read \(.*{reason}.*\); restore the damaged or missing file"
    with pytest.raises(StoreError, match=wanted):
        known(store, [0], list(range(50)))
    assert len(known(store, [0], list(range(50)), "u")) == 50


def test_a_damaged_log_is_an_error(tmp_path: Path) -> None:
    """The list of files is part of the store."""
    store = ScoreStore(str(tmp_path / "store"))
    append(store, {(0, 1): 1.0})
    (tmp_path / "store" / "_delta_log" / "00000000000000000000.json").write_text("{")
    with pytest.raises(StoreError, match="the score store cannot be read"):
        known(store, [0], [1])


def test_a_foreign_table_is_refused(tmp_path: Path) -> None:
    """A Delta table of something else."""
    deltalake.write_deltalake(str(tmp_path / "store"), pa.table({"teacher": ["t"], "n": [1]}), partition_by=["teacher"])
    with pytest.raises(StoreError, match="columns are teacher: string, n: int64; expected teacher: string, image_digest"):
        known(ScoreStore(str(tmp_path / "store")), [0], [1])


def test_a_store_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "store").write_text("in the way")
    with pytest.raises(StoreError, match=r"scores cannot be added to the store .*run the same command again"):
        append(ScoreStore(str(tmp_path / "store")), {(0, 1): 1.0})


def test_the_store_lies_in_the_cache(tmp_path: Path) -> None:
    """Unless a setting says otherwise; CPRD_CACHE is the test's own folder."""
    assert default_store() == str(tmp_path / "cache" / "scores")


def test_a_log_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """Not an empty store: everything would be bought again."""
    store = ScoreStore(str(tmp_path / "store"))
    append(store, {(0, 1): 1.0})
    shutil.rmtree(tmp_path / "store" / "_delta_log")
    for use in (lambda: known(store, [0], [1]), lambda: append(store, {(0, 2): 1.0}), lambda: store.count("t")):
        with pytest.raises(StoreError, match=r"_delta_log is gone\); restore the folder _delta_log"):
            use()


def test_a_log_with_a_hole_is_an_error_of_one_short_line(tmp_path: Path) -> None:
    """The deltalake library's own message shows a whole structure."""
    store = ScoreStore(str(tmp_path / "store"))
    for caption in range(4):
        append(store, {(0, caption): 1.0})
    (tmp_path / "store" / "_delta_log" / f"{2:020d}.json").unlink()
    with pytest.raises(StoreError, match=r"the score store cannot be read .*found gap.*restore the folder _delta_log") as caught:
        known(store, [0], [1])
    assert len(str(caught.value)) < 600


def test_other_programs_read_the_store(tmp_path: Path) -> None:
    """Polars finds every row, with the table's columns."""
    store = ScoreStore(str(tmp_path / "store"))
    append(store, {(0, 1): 1.0, (1, 1): 2.0})
    append(store, {(0, 1): 3.0}, "u", "i2t")
    found = pl.read_delta(store.uri)
    assert found.columns == ["teacher", "image_digest", "caption_digest", "direction", "score"]
    rows = {
        (row["teacher"], row["image_digest"], row["caption_digest"], row["direction"], row["score"]) for row in found.to_dicts()
    }
    image, other = digests([0]).tobytes(), digests([1]).tobytes()
    assert rows == {("t", image, other, "both", 1.0), ("t", other, other, "both", 2.0), ("u", image, other, "i2t", 3.0)}


def test_rows_of_other_programs_are_read(tmp_path: Path) -> None:
    """The deltalake library's own writer, as versions of ours before this one used it, and as anybody may."""
    store = ScoreStore(str(tmp_path / "store"))
    append(store, {(0, 1): 1.0})
    rows = pl.read_delta(store.uri).with_columns(pl.lit(0.5).cast(pl.Float32).alias("score"))
    deltalake.write_deltalake(store.uri, rows.to_arrow(), mode="append")
    assert known(store, [0], [1]) == {(0, 1): 0.5}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("score", float("nan"), "1 of 1 scores are not finite; expected finite scores"),
        ("direction", "up", "the direction 'up'; expected both or i2t or t2i"),
        ("image_digest", b"short", "digests of 5 bytes; expected 16 bytes"),
    ],
)
def test_what_no_score_can_be_is_refused_when_it_is_read(tmp_path: Path, column: str, value: object, message: str) -> None:
    """Another program wrote it."""
    store = ScoreStore(str(tmp_path / "store"))
    append(store, {(0, 1): 1.0})
    rows = pl.read_delta(store.uri).with_columns(pl.lit(value).cast(pl.read_delta(store.uri).schema[column]).alias(column))
    deltalake.write_deltalake(store.uri, rows.to_arrow(), mode="append")
    with pytest.raises(StoreError, match=rf"the score store cannot be read \({message}\)"):
        known(store, [0], [1])


def test_a_changed_layout_is_refused(tmp_path: Path) -> None:
    """A table of the right columns without a folder for each teacher."""
    store = ScoreStore(str(tmp_path / "one"))
    append(store, {(0, 1): 1.0})
    other = ScoreStore(str(tmp_path / "other"))
    deltalake.write_deltalake(other.uri, pl.read_delta(store.uri).to_arrow(), schema_mode="overwrite", mode="overwrite")
    with pytest.raises(StoreError, match="another program changed the layout of this table"):
        known(other, [0], [1])


def test_a_teacher_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    """Fingerprints never are."""
    with pytest.raises(StoreError, match=r"the teacher '\.\./up'; expected a fingerprint"):
        append(ScoreStore(str(tmp_path / "store")), {(0, 1): 1.0}, "../up")


def test_a_file_listed_under_another_teacher_is_an_error(tmp_path: Path) -> None:
    """The log's folder and its column must agree."""
    store = ScoreStore(str(tmp_path / "store"))
    append(store, {(0, 1): 1.0})
    log = tmp_path / "store" / "_delta_log" / f"{1:020d}.json"
    log.write_text(log.read_text().replace('"teacher":"t"', '"teacher":"u"'))
    with pytest.raises(StoreError, match="listed under the teacher u"):
        known(store, [0], [1], "u")


@pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "a%zz", "%", "日本", "it's", "a:b", "a+b", "[x]"])
def test_any_name_of_a_folder_is_taken_literally(tmp_path: Path, name: str) -> None:
    """None is an address with characters to be decoded."""
    store = ScoreStore(str(tmp_path / name))
    append(store, {(0, 1): 1.0})
    assert known(store, [0], [1]) == {(0, 1): 1.0}
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == [name]


@pytest.mark.parametrize(("name", "taken"), [("a%20b", "a b"), ("%C3%BC", "ü"), ("a\\b", "a/b")])
def test_a_folder_that_deltalake_would_look_for_elsewhere_is_refused(tmp_path: Path, name: str, taken: str) -> None:
    """Scores would lie in one folder and their log be read from another; a link, or a folder above, changes nothing."""
    (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / name)
    for path in (tmp_path / name, tmp_path / name / "store", tmp_path / "link"):
        for uri in (str(path), path.as_uri()):
            message = f"{path}: the score store would be looked for in {tmp_path / taken}"
            with pytest.raises(StoreError, match=f"{re.escape(message)}.*; expected a path without .*rename that folder"):
                ScoreStore(uri)
            with pytest.raises(StoreError, match=re.escape(message)):
                check_store_place(uri)


def test_a_batch_without_rows_stores_nothing(tmp_path: Path) -> None:
    """Not even a table."""
    store = ScoreStore(str(tmp_path / "store"))
    store.append("t", "both", digests([]), digests([]), np.empty(0, dtype=np.float32))
    assert not (tmp_path / "store").exists()


_FULL_DISK = """
import resource, signal, sys
from cprd_pipeline.errors import CprdError
from cprd_pipeline.store.scores import ScoreStore
from tests.store.score_pairs import append
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    append(ScoreStore(sys.argv[1]), {(2, caption): 2.0 for caption in range(400)})
except CprdError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize(("room", "message"), [(2000, "MachineError: .*parquet: File too large"), (0, "cannot be added|too large")])
def test_a_file_that_cannot_be_written_whole_stores_nothing(tmp_path: Path, room: int, message: str) -> None:
    """The kernel refuses further bytes, as on a full disk; what was there is there, and the same command goes on."""
    store = ScoreStore(str(tmp_path / "store"))
    append(store, {(0, 1): 1.0})
    done = subprocess.run([sys.executable, "-c", _FULL_DISK, store.uri, str(room)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert known(store, [0, 2], list(range(400))) == {(0, 1): 1.0}
    assert len(data_files(store)) == 1
    append(store, {(2, caption): 2.0 for caption in range(400)})
    assert len(known(store, [0, 2], list(range(400)))) == 401


@pytest.mark.parametrize("refused", ["data", "log"])
def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    """While the scores are written, or while the table's log is."""
    store = ScoreStore(str(tmp_path / "store"))
    append(store, {(0, 1): 1.0})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if refused == "data" else (deltalake.DeltaTable, "create_write_transaction")), full)
    message = "the disk is full; free some space" if refused == "data" else "cannot be added .*No space left.*run the same command"
    with pytest.raises(CprdError, match=message):
        append(store, {(0, 2): 1.0})
    monkeypatch.undo()
    assert known(store, [0], [1, 2]) == {(0, 1): 1.0}
