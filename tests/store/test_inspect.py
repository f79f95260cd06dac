"""`inspect` tells what a folder holds, and notices damage."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from cprd_pipeline.errors import StoreError
from cprd_pipeline.models.embedding_cache import EmbeddingCache
from cprd_pipeline.store.inspect import first_rows_text, inspect_path
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.report import StageReport
from cprd_pipeline.store.scores import ScoreStore


def test_a_folder_is_described(tmp_path: Path) -> None:
    """Kind, settings, inputs and rows are there."""
    writer = OutputWriter(tmp_path / "out", "candidates", {"k": 3}, {"corpus": "abc"})
    for number in range(15):
        writer.write_table(f"p{number:02d}.parquet", pa.table({"n": [1, 2]}))
    writer.finish()
    shown = dict(inspect_path(tmp_path / "out").table)
    assert "candidates" in shown["folder"]
    assert shown["written by"] == "cprd-pipeline mine"
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


def test_first_rows_of_each_kind_of_part(tmp_path: Path) -> None:
    """Of the first of all i2t parts and of the first of all t2i parts; other files have none."""
    writer = OutputWriter(tmp_path / "out", "candidates", {}, {})
    for direction in ("i2t", "t2i"):
        for number in range(3):
            writer.write_table(f"{direction}-{number:05d}.parquet", pa.table({"query": [f"{direction} {number}", "next"]}))
    writer.write_json("counts.json", {})
    writer.finish()
    report = inspect_path(tmp_path / "out")
    assert report.results["first_rows"] == {
        f"{direction}-00000.parquet": {"columns": ["query"], "rows": [[f"{direction} 0"], ["next"]]} for direction in ("i2t", "t2i")
    }
    assert first_rows_text(report) == "\ni2t-00000.parquet\nquery\ni2t 0\nnext\n\nt2i-00000.parquet\nquery\nt2i 0\nnext\n"


def test_a_model_folder_shows_its_tensors(tmp_path: Path) -> None:
    """In the order in which they are stored."""
    writer = OutputWriter(tmp_path / "out", "student", {}, {})
    tensors = {"b": torch.zeros(2, 3), "a": torch.zeros(4, dtype=torch.bfloat16)}
    writer.write_part("model.safetensors", lambda path: save_file(tensors, path))
    writer.finish()
    report = inspect_path(tmp_path / "out")
    assert dict(report.table)["written by"] == "cprd-pipeline distill"
    assert dict(report.table)["holds"] == "1 file"
    assert "rows" not in dict(report.table)
    assert sorted(report.results["first_rows"]["model.safetensors"]["rows"]) == [["a", "BF16", "4"], ["b", "F32", "2 x 3"]]


def test_the_score_store(tmp_path: Path) -> None:
    """Its teachers, and the first scores of a file."""
    digests = np.arange(32, dtype=np.uint8).reshape(2, 16)
    ScoreStore(str(tmp_path / "scores")).append("f" * 32, "both", digests, digests, np.array([1.5, -2], dtype=np.float32))
    report = inspect_path(tmp_path / "scores")
    shown = dict(report.table)
    assert shown["written by"] == "cprd-pipeline score-teacher"
    assert "2 scores (both)" in shown["f" * 12]
    (first,) = report.results["first_rows"].values()
    assert "score" in first["columns"]
    assert "1.5" in first["rows"][0]


def test_an_embeddings_cache(tmp_path: Path) -> None:
    """Vectors of each side, in chunks; a side may be empty."""
    cache = EmbeddingCache(tmp_path / "encoder" / "images")
    for chunk in range(2):
        digests = np.full((3, 16), chunk, dtype=np.uint8)
        cache.add(digests, np.full((3, 4), 0.5, dtype=np.float32))
    report = inspect_path(tmp_path / "encoder")
    shown = dict(report.table)
    assert shown["encoder"] == "encoder"
    assert shown["images"] == "6 vectors in 2 chunks"
    assert shown["captions"] == "0 vectors in 0 chunks"
    (first,) = report.results["first_rows"].values()
    assert first["rows"] == [[str(row), "4: 0.5, 0.5, 0.5, …"] for row in range(3)]


def test_the_state_of_an_unfinished_stage(tmp_path: Path) -> None:
    """Which stage, and what is finished."""
    writer = OutputWriter(tmp_path / "out", "rankings", {}, {})
    writer.write_table("a.parquet", pa.table({"n": [1, 2]}))
    shown = dict(inspect_path(writer.state).table)
    assert "state of a rankings folder that is not finished" in shown["folder"]
    assert shown["written by"].startswith("cprd-pipeline score-teacher; the same command")
    assert shown["finished"] == "1 file, 2 rows"


def test_the_folder_of_reports(tmp_path: Path) -> None:
    """Each with its command; other JSON files are left out."""
    for stage in ("mine", "distill"):
        StageReport(stage, {}, {}, [], {"all": 2.0}).save(tmp_path / f"{stage}.json")
    (tmp_path / "metrics.json").write_text("{}")
    table = inspect_path(tmp_path).table
    assert table[1:] == [("distill.json", "cprd-pipeline distill, 2.0 s"), ("mine.json", "cprd-pipeline mine, 2.0 s")]


def test_a_report_is_shown_again(tmp_path: Path) -> None:
    """The same table as when the stage ran."""
    report = StageReport("mine", {}, {}, [("queries", "5")])
    report.save(tmp_path / "mine.json")
    found = inspect_path(tmp_path / "mine.json")
    assert found.table == [("queries", "5")]
    assert first_rows_text(found) == ""


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    """A foreign folder, a foreign file, nothing."""
    for name in ("x.json", "mine.yaml", "report.html"):
        (tmp_path / name).write_text("{}")
        # Never to delete it: it may be the user's settings.
        with pytest.raises(StoreError, match=r"not the report of a stage; .*data/reports.*an output folder.*; name one of them$"):
            inspect_path(tmp_path / name)
    with pytest.raises(StoreError, match="unfinished or not ours"):
        inspect_path(tmp_path)
    with pytest.raises(StoreError, match=r"no such folder.*name one of the folders in data/"):
        inspect_path(tmp_path / "nothing")
