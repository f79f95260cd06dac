"""`verify` finds what changed on the disk; `summary` counts what is there."""

from pathlib import Path

import deltalake
import polars as pl
import pytest

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.score_check import forget, summary, verify
from cprd_pipeline.store.score_compaction import compact
from cprd_pipeline.store.scores import ScoreStore
from tests.store.score_pairs import append, data_files, flip_a_bit, known


def three_files(tmp_path: Path) -> ScoreStore:
    """Of one teacher, with ten, eleven and twelve scores."""
    store = ScoreStore(str(tmp_path / "store"))
    for number in range(3):
        append(store, {(number, caption): float(number) for caption in range(10 + number)})
    return store


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    """At every place of a file, also where Parquet still decodes it; the others stay right."""
    store = three_files(tmp_path)
    file = data_files(store)[1]
    content = file.read_bytes()
    for byte in range(0, len(content), 41):
        flip_a_bit(file, byte)
        assert [(one.path, wrong) for one, wrong in verify(store).damaged] == [
            (f"teacher=t/{file.name}", "its bytes changed after it was written")
        ]
        file.write_bytes(content)
    assert verify(store).damaged == []


def test_every_damaged_file_is_named(tmp_path: Path) -> None:
    """Truncated, grown, gone: each with what is wrong."""
    store = three_files(tmp_path)
    first, second, third = data_files(store)
    size = second.stat().st_size
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    third.write_bytes(third.read_bytes() + b"?")
    check = verify(store)
    assert [wrong for _, wrong in check.damaged] == [
        "the file is gone",
        f"{size - 1:,} bytes instead of {size:,}",
        f"{third.stat().st_size:,} bytes instead of {third.stat().st_size - 1:,}",
    ]
    assert (check.files, check.rows) == (3, 33)


def test_damage_survives_the_cleaning_of_the_log(tmp_path: Path) -> None:
    """The digests stand in the names, so checkpoints and a shortened log keep them."""
    store = three_files(tmp_path)
    compact(store, ["t"])
    for commit in (tmp_path / "store" / "_delta_log").glob("*.json"):
        if int(commit.stem) < deltalake.DeltaTable(store.uri).version():
            commit.unlink()
    (file,) = data_files(store)
    assert verify(store).damaged == []
    flip_a_bit(file, 200)
    assert len(verify(store).damaged) == 1


def test_files_of_other_programs_are_counted_and_decoded(tmp_path: Path) -> None:
    """No digest says what their bytes must be: a broken one is found where it does not decode."""
    store = three_files(tmp_path)
    rows = pl.read_delta(store.uri).head(4).to_arrow()
    deltalake.write_deltalake(store.uri, rows, mode="append")
    check = verify(store)
    assert (check.files, check.undigested, check.damaged) == (4, 1, [])
    (foreign,) = [file for file in data_files(store) if file.name.startswith("part-")]
    foreign.write_bytes(bytes(foreign.stat().st_size))
    ((file, wrong),) = verify(store).damaged
    assert file.path.endswith(foreign.name)
    assert "Parquet" in wrong


def test_files_that_the_table_does_not_list_are_counted(tmp_path: Path) -> None:
    """The newest entry of the log is lost: its scores are there, but they do not count."""
    store = three_files(tmp_path)
    log = sorted((tmp_path / "store" / "_delta_log").glob("*.json"))
    log[-1].unlink()
    check = verify(store)
    assert (check.files, check.stray, check.damaged) == (2, 1, [])


def test_forgotten_files_can_be_bought_again(tmp_path: Path) -> None:
    """Only what the user gave up is gone; the same scores may come back under the same name."""
    store = three_files(tmp_path)
    (file,) = [file for file in data_files(store) if store.table.files("t")[0].path.endswith(file.name)]
    flip_a_bit(file, 50)
    forget(store, [one for one, _ in verify(store).damaged])
    assert verify(store).damaged == []
    left = known(store, [0, 1, 2], list(range(12)))
    for number in range(3):
        append(store, {(number, caption): float(number) for caption in range(10 + number)})
    whole = known(store, [0, 1, 2], list(range(12)))
    assert len(whole) == 33
    assert left.items() < whole.items()
    assert verify(store).damaged == []


def test_forgetting_what_is_not_there_any_more_is_refused(tmp_path: Path) -> None:
    """A compaction came in between."""
    store = three_files(tmp_path)
    old = store.table.files("t")
    compact(store, ["t"])
    with pytest.raises(StoreError, match="somebody else replaced the same files"):
        forget(store, old)


def test_forgetting_without_room_for_the_log_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, and the file stays in the table."""
    store = three_files(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(deltalake.DeltaTable, "create_write_transaction", full)
    with pytest.raises(StoreError, match=r"the list of files cannot be written \(.*No space left"):
        forget(store, store.table.files("t")[:1])
    assert len(store.table.files("t")) == 3


@pytest.mark.parametrize("range_rows", [1 << 20, 4])
def test_the_summary_counts_rows_files_and_doubles(tmp_path: Path, range_rows: int) -> None:
    """Doubles within a direction only; in memory and over the disk; compaction leaves none."""
    store = ScoreStore(str(tmp_path / "store"))
    append(store, {(0, caption): 1.0 for caption in range(10)})
    append(store, {(0, caption): 2.0 for caption in range(7)})
    append(store, {(0, caption): 2.0 for caption in range(7)}, direction="i2t")
    append(store, {(0, 0): 1.0}, "u", "t2i")
    one, other = summary(store, range_rows)
    assert (one.teacher, one.directions, one.rows, one.doubled, one.files) == ("t", ["both", "i2t"], 24, 7, 3)
    assert one.bytes == sum(file.stat().st_size for file in data_files(store))
    assert (other.teacher, other.directions, other.rows, other.doubled, other.files) == ("u", ["t2i"], 1, 0, 1)
    compact(store, ["t"])
    assert [(found.rows, found.doubled) for found in summary(store)] == [(17, 0), (1, 0)]


@pytest.mark.parametrize("look", [summary, verify])
def test_a_store_that_is_not_there_is_named(tmp_path: Path, look) -> None:
    """Nothing is made."""
    with pytest.raises(StoreError, match="nowhere: there is no score store; name another one with --store"):
        look(ScoreStore(str(tmp_path / "nowhere")))
    assert not (tmp_path / "nowhere").exists()
