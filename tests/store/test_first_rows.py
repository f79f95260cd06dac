"""Tables of first rows: short cells, at most 80 columns, nothing that a terminal would obey."""

import io
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from cprd_pipeline.store.first_rows import FirstRows, first_rows_of_table, render, show
from cprd_pipeline.store.schemas import CANDIDATES, CAPTIONS, EVALUATED_QUERIES, IMAGES, RANKINGS


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, "-"),
        (0.123456, "0.1235"),
        (float("inf"), "inf"),
        (bytes(range(16)), "000102030405…"),
        (b"x" * 5000, "5,000 bytes"),
        ([], "[]"),
        (["a", "b", "c"], "[a, b, c]"),
        ([1.0, 2.0, 3.0, 4.0], "4: 1, 2, 3, …"),
        (True, "True"),
        ("\x1b[2Ja\u202eb\n", "\ufffd[2Ja\ufffdb\ufffd"),
        ("字" * 200, "字" * 100 + "…"),
    ],
)
def test_cells(value, cell):
    """Each type in its short form; escape sequences and marks of direction are taken out."""
    assert show(value) == cell


@given(
    st.integers(0, 12).flatmap(
        lambda columns: st.tuples(
            st.lists(st.text(max_size=20), min_size=columns, max_size=columns),
            st.lists(st.lists(st.text(max_size=120), min_size=columns, max_size=columns), max_size=5),
        )
    )
)
def test_tables_fit(content):
    """Whatever the cells hold, wide characters included."""
    columns, rows = ([show(name) for name in content[0]], [[show(cell) for cell in row] for row in content[1]])
    for line in render("title", FirstRows(columns, rows)).splitlines():
        assert cell_len(line) <= 80
        assert not any(unicodedata.category(character) == "Cc" for character in line)


@pytest.mark.parametrize("schema", [IMAGES, CAPTIONS, CANDIDATES, RANKINGS, EVALUATED_QUERIES])
def test_all_columns_of_our_tables_are_named(schema, tmp_path):
    """Also where there are no rows."""
    pq.write_table(schema.empty_table(), tmp_path / "a.parquet")
    shown = render("a.parquet", first_rows_of_table(tmp_path / "a.parquet"))
    assert all(name[:15] in shown for name in schema.names)


def test_many_columns_stand_below_each_other():
    """Three rows side by side; few columns stay as they are."""
    names = [f"c{number}" for number in range(7)]
    rows = [[f"{row}{number}" for number in range(7)] for row in range(5)]
    assert render("t", FirstRows(names, rows)).splitlines() == ["t", *(f"c{n}  0{n}  1{n}  2{n}" for n in range(7))]
    rows = [row[:6] for row in rows]
    lines = render("t", FirstRows(names[:6], rows)).splitlines()
    assert lines[1] == "c0  c1  c2  c3  c4  c5"
    assert lines[6] == "40  41  42  43  44  45"


def test_the_widest_columns_are_cut():
    """Narrow ones keep their width."""
    shown = render("t", FirstRows(["id", "text", "more"], [["1", "a" * 60, "b" * 60]])).splitlines()[2]
    assert shown == f"1   {'a' * 36}…  {'b' * 36}…"


def test_only_the_beginning_is_read(tmp_path: Path, monkeypatch):
    """A row group may hold gigabytes of pictures."""
    pictures = [row.to_bytes(2, "big") * 1000 for row in range(8192)]
    pq.write_table(pa.table({"bytes": pictures}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    read = []

    class Watched(io.FileIO):
        def read(self, size=-1):
            content = super().read(size)
            read.append(len(content))
            return content

    whole = pq.ParquetFile
    with Watched(tmp_path / "a.parquet") as file:
        monkeypatch.setattr(pq, "ParquetFile", lambda path, **options: whole(file, **options))
        assert first_rows_of_table(tmp_path / "a.parquet").rows == [["2,000 bytes"]] * 5
    assert 10_000 < sum(read) < len(pictures) * 2000 / 4
