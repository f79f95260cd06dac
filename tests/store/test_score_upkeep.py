"""Looking after the store: list, verify, export and import, as the commands do it."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.score_commands import compact_scores, export_to, import_from, list_scores, verify_scores
from cprd_pipeline.store.score_exchange import export_scores, import_scores
from cprd_pipeline.store.scores import ScoreStore
from tests.store.score_pairs import Pairs, append, data_files, flip_a_bit, known

IMAGES, CAPTIONS = list(range(5)), list(range(6))
BATCH = st.dictionaries(st.tuples(st.sampled_from(IMAGES), st.sampled_from(CAPTIONS)), st.floats(-9, 9, width=32), max_size=12)


def store_of(folder: Path, *batches: Pairs, teacher: str = "t") -> ScoreStore:
    """A store with these batches."""
    store = ScoreStore(str(folder))
    for batch in batches:
        if batch:
            append(store, batch, teacher)
    return store


@given(BATCH, BATCH, st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_what_is_exported_and_imported_is_the_union(tmp_path_factory, theirs: Pairs, ours: Pairs, rows: int) -> None:
    """Lower scores win; the counts are those of a dictionary; a second import changes nothing."""
    folder = tmp_path_factory.mktemp("exchange")
    source, target = store_of(folder / "a", {(0, 0): 1.0}, theirs), store_of(folder / "b", ours)
    theirs = {**theirs, (0, 0): min(1.0, theirs.get((0, 0), 1.0))}
    assert export_scores(source, folder / "s.parquet", ["t"], rows) == len(theirs)
    done = import_scores(target, folder / "s.parquet", rows)
    assert done.new == len(set(theirs) - set(ours))
    assert done.conflicting == sum(ours[pair] != theirs[pair] for pair in set(ours) & set(theirs))
    assert done.lowered == sum(theirs[pair] < ours[pair] for pair in set(ours) & set(theirs))
    assert done.new + done.same + done.conflicting == len(theirs)
    union = {pair: min(side[pair] for side in (ours, theirs) if pair in side) for pair in {*ours, *theirs}}
    assert known(target, IMAGES, CAPTIONS) == union
    again = import_scores(target, folder / "s.parquet", rows)
    assert (again.new, again.lowered) == (0, 0)
    assert known(target, IMAGES, CAPTIONS) == union


def test_an_export_is_plain_parquet_in_a_fixed_order(tmp_path: Path) -> None:
    """Other programs read it; equal stores give equal bytes, however they were filled; a file that is there stays."""
    one = store_of(tmp_path / "a", {(0, 1): 2.0, (3, 3): -1.0}, {(2, 2): 0.5})
    other = store_of(tmp_path / "b", {(2, 2): 0.5, (3, 3): -1.0, (0, 1): 2.0})
    for name, store in (("a", one), ("b", other)):
        export_to(store.uri, tmp_path / f"{name}.parquet", None)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    frame = pl.read_parquet(tmp_path / "a.parquet")
    assert frame.columns == ["teacher", "image_digest", "caption_digest", "direction", "score"]
    assert frame.sort("teacher", "image_digest", "caption_digest").equals(frame)
    with pytest.raises(StoreError, match=r"a\.parquet: there is a file already; name a new one"):
        export_to(one.uri, tmp_path / "a.parquet", None)


def exported(tmp_path: Path) -> Path:
    """A good export."""
    export_to(store_of(tmp_path / "a", {(0, 1): 2.0, (3, 3): -1.0}).uri, tmp_path / "s.parquet", None)
    return tmp_path / "s.parquet"


def with_column(name: str, values: pa.Array):
    """Replace a column of an export."""

    def change(path: Path) -> None:
        table = pq.read_table(path)
        pq.write_table(table.set_column(table.schema.get_field_index(name), name, values), path)

    return change


def cut(path: Path) -> None:
    """Lose its end."""
    path.write_bytes(path.read_bytes()[:-30])


def renamed(path: Path) -> None:
    """Other columns."""
    pq.write_table(pq.read_table(path).rename_columns(["model", "image", "text", "side", "logit"]), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, "not a whole Parquet file .*export and copy it again"),
        (renamed, "columns are model: string, .*expected teacher: string"),
        (with_column("score", pa.array([1.0, 2.0], pa.float64())), "columns are .*score: double"),
        (with_column("score", pa.array([1.0, float("nan")], pa.float32())), "nothing of it was stored; export the scores again"),
        (with_column("direction", pa.array(["both", "sideways"])), "nothing of it was stored"),
        (with_column("image_digest", pa.array([b"short", b"x" * 16], pa.binary())), "nothing of it was stored"),
        (Path.unlink, r"s\.parquet: there is no such file; name a file that `cprd-pipeline scores export` wrote"),
    ],
)
def test_a_foreign_or_damaged_file_is_refused_whole(tmp_path: Path, change, message: str) -> None:
    """One line; the store is not even made."""
    path = exported(tmp_path)
    change(path)
    with pytest.raises(StoreError, match=message):
        import_from(str(tmp_path / "new"), path)
    assert not (tmp_path / "new" / "_delta_log").exists()


def test_list_tells_each_teacher_apart(tmp_path: Path) -> None:
    """Scores, directions, files, bytes a score and doubled keys; long fingerprints are cut where they stay apart."""
    store = store_of(tmp_path / "s", {(0, 1): 2.0, (3, 3): -1.0}, {(0, 1): 1.0}, teacher="a" * 32)
    append(store, {(1, 1): 0.0}, "b" * 32, "i2t")
    report = list_scores(store.uri)
    first, second = report.results["teachers"]
    assert (first["rows"], first["doubled"], first["files"], first["directions"]) == (3, 1, 2, ["both"])
    assert (second["rows"], second["doubled"], second["directions"]) == (1, 0, ["i2t"])
    assert ("a" * 12, "3 scores (both), 1 of them doubled") in report.table
    assert sum(one["bytes"] for one in report.results["teachers"]) == sum(
        file.stat().st_size for teacher in ("a" * 32, "b" * 32) for file in data_files(store, teacher)
    )


def test_verify_names_what_changed_and_forgets_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped bit is found; only on demand is the file given up, and then exactly its scores are unknown."""
    store = store_of(tmp_path / "s", {(0, 1): 2.0}, {(3, 3): -1.0, (2, 2): 5.0})
    assert verify_scores(store.uri, forget_damaged=False).results["damaged"] == []
    victim = next(file for file in store.table.files() if file.rows == 2)
    flip_a_bit(tmp_path / "s" / victim.path, 40)
    with pytest.raises(StoreError, match=r"1 of 2 files damaged \(first: teacher=t/.*then 2 scores are bought again"):
        verify_scores(store.uri, forget_damaged=False)
    assert victim.path in capsys.readouterr().err
    with pytest.raises(StoreError, match="scores verify"):
        known(store, IMAGES, CAPTIONS)
    assert verify_scores(store.uri, forget_damaged=True).results["forgotten"] == 2
    assert known(store, IMAGES, CAPTIONS) == {(0, 1): 2.0}
    assert ("not in the table", "1 file: replaced, or of a killed run; compact deletes them") in verify_scores(
        store.uri, forget_damaged=False
    ).table
    assert compact_scores(store.uri, None).results["deleted"] >= 1
    assert verify_scores(store.uri, forget_damaged=False).results["stray"] == 0


@pytest.mark.parametrize(
    "command", [list_scores, lambda uri: verify_scores(uri, forget_damaged=False), lambda uri: compact_scores(uri, None)]
)
def test_a_store_that_is_not_there_is_said(tmp_path: Path, command) -> None:
    """With what to do."""
    with pytest.raises(StoreError, match="there is no score store; name another one with --store"):
        command(str(tmp_path / "nowhere"))


def test_a_teacher_is_named_by_its_beginning(tmp_path: Path) -> None:
    """One that no teacher, or that several, begin with is refused."""
    store = store_of(tmp_path / "s", {(0, 1): 2.0}, teacher="abc")
    append(store, {(1, 1): 0.0}, "abd")
    assert export_to(store.uri, tmp_path / "one.parquet", "abd").results["teachers"] == ["abd"]
    for prefix, count in (("ab", 2), ("x", 0)):
        with pytest.raises(StoreError, match=f"--teacher {prefix}: {count} teachers .*expected one of abc, abd"):
            compact_scores(store.uri, prefix)
