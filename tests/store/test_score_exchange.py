"""Scores go from one store to another through a plain Parquet file, and nothing else gets in."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cprd_pipeline.errors import MachineError, StoreError
from cprd_pipeline.store.score_exchange import Imported, export_scores, import_scores
from cprd_pipeline.store.scores import ScoreStore
from tests.store.score_pairs import append, data_files, digests, flip_a_bit, known


def source(tmp_path: Path) -> ScoreStore:
    """Two teachers, two directions, doubled keys."""
    store = ScoreStore(str(tmp_path / "source"))
    append(store, {(image, caption): float(image - caption) for image in range(5) for caption in range(6)})
    append(store, {(2, caption): -50.0 for caption in range(3)})
    append(store, {(2, caption): 7.0 for caption in range(3)}, direction="i2t")
    append(store, {(1, 1): 0.5}, "u", "t2i")
    return store


def everything(store: ScoreStore) -> list[dict]:
    """What the store says of every key of `source`."""
    keys = [("t", "both"), ("t", "i2t"), ("u", "t2i")]
    return [known(store, list(range(5)), list(range(6)), *key) for key in keys]


@pytest.mark.parametrize("range_rows", [1 << 20, 5])
def test_an_export_carries_everything(tmp_path: Path, range_rows: int) -> None:
    """Plain columns, sorted, each key once; a second import finds nothing new."""
    store, file = source(tmp_path), tmp_path / "out" / "scores.parquet"
    assert export_scores(store, file, ["t", "u"], range_rows) == 34
    table = pl.read_parquet(file)
    assert table.columns == ["teacher", "image_digest", "caption_digest", "direction", "score"]
    keys = table.select("teacher", "image_digest", "caption_digest", "direction").rows()
    assert keys == sorted(set(keys))
    assert list(file.parent.iterdir()) == [file]
    other = ScoreStore(str(tmp_path / "other"))
    assert import_scores(other, file, range_rows) == Imported(34, 0, 0, 0)
    assert everything(other) == everything(store)
    assert import_scores(other, file, range_rows) == Imported(0, 34, 0, 0)
    assert other.count("t") + other.count("u") == 34


def test_an_export_of_one_teacher_holds_no_other(tmp_path: Path) -> None:
    """By its full fingerprint."""
    file = tmp_path / "u.parquet"
    assert export_scores(source(tmp_path), file, ["u"]) == 1
    assert pl.read_parquet(file)["teacher"].to_list() == ["u"]


def test_of_two_scores_the_lower_counts_after_an_import(tmp_path: Path) -> None:
    """Both ways: where the file's is lower it is stored, where it is higher it is not, and the conflicts are counted."""
    store, file = source(tmp_path), tmp_path / "scores.parquet"
    export_scores(store, file, ["t"])
    other = ScoreStore(str(tmp_path / "other"))
    append(other, {(0, 0): 9.0, (0, 1): -9.0, (0, 2): -2.0})
    assert import_scores(other, file) == Imported(new=30, same=1, conflicting=2, lowered=1)
    expected = known(store, [0], list(range(6))) | {(0, 1): -9.0}
    assert known(other, [0], list(range(6))) == expected
    assert import_scores(other, file) == Imported(new=0, same=32, conflicting=1, lowered=0)


def test_a_key_that_the_file_names_twice_is_stored_once(tmp_path: Path) -> None:
    """Wherever the blocks are cut; the lower score counts."""
    file, store = tmp_path / "scores.parquet", ScoreStore(str(tmp_path / "store"))
    pq.write_table(table_of([3.0, 1.0, 2.0]), file)
    assert import_scores(store, file) == Imported(new=1, same=2, conflicting=0, lowered=0)
    assert known(store, [0], [1]) == {(0, 1): 1.0}
    blockwise = ScoreStore(str(tmp_path / "blockwise"))
    assert import_scores(blockwise, file, block_rows=1) == Imported(new=1, same=0, conflicting=2, lowered=1)
    assert known(blockwise, [0], [1]) == {(0, 1): 1.0}


def table_of(scores: list[float], **columns: list) -> pa.Table:
    """A table as an export has it, for one and the same pair."""
    digest = [digests([number]).tobytes() for number in (0, 1)]
    rows = len(scores)
    plain = {
        "teacher": ["t"] * rows,
        "image_digest": [digest[0]] * rows,
        "caption_digest": [digest[1]] * rows,
        "direction": ["both"] * rows,
        "score": np.array(scores, dtype=np.float32),
    }
    table = pa.table(plain | columns)
    return table.cast(
        pa.schema([field if field.name != "image_digest" else pa.field(field.name, pa.binary()) for field in table.schema])
    )


FOREIGN = {
    "another column": (table_of([1.0], extra=[1]), "columns are teacher.*extra: int64; expected teacher: string, image_digest"),
    "a missing column": (table_of([1.0]).drop_columns(["direction"]), "columns are .*; expected teacher: string, image_digest"),
    "another type": (table_of([1.0], score=[1.0]), "columns are .*score: double; expected .*score: float"),
    "not finite": (
        table_of([1.0, float("nan"), 2.0]),
        "1 of 3 scores are not finite; expected finite scores; nothing of it was stored",
    ),
    "infinite": (table_of([float("inf")]), "1 of 1 scores are not finite"),
    "no score": (
        table_of(
            [],
            score=pa.array([None], pa.float32()),
            teacher=["t"],
            image_digest=[bytes(16)],
            caption_digest=[bytes(16)],
            direction=["both"],
        ),
        "1 of 1 scores are not finite",
    ),
    "a short digest": (table_of([1.0], image_digest=[b"short"]), "digests of 5 bytes; expected 16 bytes"),
    "a direction of its own": (table_of([1.0], direction=["up"]), "the direction 'up'; expected both or i2t or t2i"),
    "no teacher": (table_of([1.0], teacher=pa.array([None], pa.string())), "1 rows without a teacher; expected no nulls"),
    "no image": (table_of([1.0], image_digest=pa.array([None], pa.binary())), "1 rows without a key; expected no nulls"),
    "a path as teacher": (table_of([1.0], teacher=["../t"]), "the teacher '../t'; expected a fingerprint"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_file_is_refused_whole(tmp_path: Path, what: str) -> None:
    """With the file's name; not even its good rows are stored."""
    table, message = FOREIGN[what]
    file = tmp_path / "foreign.parquet"
    good = table_of([0.5] * 10)
    pq.write_table(table if table.schema != good.schema else pa.concat_tables([good, table]), file)
    message = message.replace("of 3 ", r"of \d+ ").replace("of 1 ", r"of \d+ ")
    with pytest.raises(StoreError, match=rf"foreign.parquet: {message}"):
        import_scores(ScoreStore(str(tmp_path / "store")), file)
    assert not (tmp_path / "store").exists()


def test_a_damaged_export_is_never_taken_for_another_one(tmp_path: Path) -> None:
    """With any flipped bit the file is refused, or it still says what it said: Parquet has bytes that mean nothing."""
    store, file = source(tmp_path), tmp_path / "scores.parquet"
    export_scores(store, file, ["t", "u"])
    content, refused = file.read_bytes(), 0
    for number, byte in enumerate(range(0, len(content), 37)):
        flip_a_bit(file, byte)
        other = ScoreStore(str(tmp_path / f"other{number}"))
        try:
            import_scores(other, file)
        except StoreError:
            refused += 1
            assert not Path(other.uri).exists()
        else:
            assert everything(other) == everything(store)
        file.write_bytes(content)
    assert refused > 20


def test_a_file_that_is_no_export_is_named(tmp_path: Path) -> None:
    """Missing, truncated, something else."""
    store, file = source(tmp_path), tmp_path / "scores.parquet"
    with pytest.raises(StoreError, match=r"scores.parquet: there is no such file; name a file that"):
        import_scores(store, file)
    export_scores(store, file, ["t"])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"scores.parquet: not a whole Parquet file .*; export and copy it again"):
        import_scores(store, file)


def test_an_export_overwrites_nothing(tmp_path: Path) -> None:
    """The user's file stays."""
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(StoreError, match="mine: there is a file already; name a new one"):
        export_scores(source(tmp_path), tmp_path / "mine", ["t"])
    assert (tmp_path / "mine").read_text() == "mine"


def test_an_export_of_a_damaged_store_leaves_no_file(tmp_path: Path) -> None:
    """Half an export would look like a whole one."""
    store = source(tmp_path)
    flip_a_bit(data_files(store)[0], 100)
    with pytest.raises(StoreError, match="its bytes changed after it was written"):
        export_scores(store, tmp_path / "out" / "scores.parquet", ["t"])
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_leaves_no_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear line."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    store = source(tmp_path)
    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(MachineError, match=r"scores.parquet: the disk is full; free some space"):
        export_scores(store, tmp_path / "out" / "scores.parquet", ["t"])
    assert list((tmp_path / "out").iterdir()) == []
