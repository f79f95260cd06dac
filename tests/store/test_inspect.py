"""`inspect` tells what a folder holds, and notices damage."""

from pathlib import Path

import pyarrow as pa
import pytest

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.folder import OutputWriter
from cprd_pipeline.store.inspect import inspect_path
from cprd_pipeline.store.report import StageReport


def test_a_folder_is_described(tmp_path: Path) -> None:
    """Kind, settings, inputs and rows are there."""
    writer = OutputWriter(tmp_path / "out", "candidates", {"k": 3}, {"corpus": "abc"})
    for number in range(15):
        writer.write_table(f"p{number:02d}.parquet", pa.table({"n": [1, 2]}))
    writer.finish()
    shown = dict(inspect_path(tmp_path / "out").table)
    assert "candidates" in shown["folder"]
    assert shown["rows"] == "30 in 15 files"
    assert shown["setting k"] == "3"
    assert shown["from corpus"] == "abc"
    assert shown["and"] == "3 more files"


def test_damage_is_an_error(tmp_path: Path) -> None:
    """A changed file is named."""
    writer = OutputWriter(tmp_path / "out", "candidates", {}, {})
    writer.write_bytes("a.bin", b"right")
    writer.finish()
    (tmp_path / "out" / "a.bin").write_bytes(b"wrong")
    with pytest.raises(StoreError, match=r"a\.bin: its bytes changed"):
        inspect_path(tmp_path / "out")


def test_a_report_is_shown_again(tmp_path: Path) -> None:
    """The same table as when the stage ran."""
    report = StageReport("mine", {}, {}, [("queries", "5")])
    report.save(tmp_path / "mine.json")
    assert inspect_path(tmp_path / "mine.json").table == [("queries", "5")]


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    """A foreign folder, a foreign file, nothing."""
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(StoreError, match="not a stage report"):
        inspect_path(tmp_path / "x.json")
    with pytest.raises(StoreError, match="unfinished or not ours"):
        inspect_path(tmp_path)
    with pytest.raises(StoreError, match=r"no such folder.*name one of the folders in data/"):
        inspect_path(tmp_path / "nothing")
