"""What an output must never replace, and where nothing can be written: known before a stage works."""

import errno
import json
import os
from pathlib import Path

import pytest

from cprd_pipeline.errors import MachineError, StoreError
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.places import check_output_place, check_writable
from cprd_pipeline.store.score_disk import check_store_place


def test_a_folder_of_the_users_is_left_alone(tmp_path: Path) -> None:
    """Whatever a setting names: nothing is staged, nothing is gone."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    with pytest.raises(StoreError, match=r"thesis: has files that no stage wrote \(chapter\.txt\).*name another `output`"):
        OutputWriter(tmp_path / "thesis", "student", {}, {})
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "precious"


def test_a_file_is_left_alone(tmp_path: Path) -> None:
    """As an output."""
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(StoreError, match=r"notes\.txt: a file lies where a corpus folder is to be written"):
        check_output_place(tmp_path / "notes.txt", "corpus")


def test_an_output_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    """A corpus is not replaced by a student."""
    OutputWriter(tmp_path / "corpus", "corpus", {}, {}).finish()
    with pytest.raises(StoreError, match=r"corpus: a corpus folder, which a student folder would replace"):
        check_output_place(tmp_path / "corpus", "student")


@pytest.mark.parametrize("manifest", [None, "", "{", json.dumps({"kind": "student", "schema_version": 0})])
def test_nothing_and_older_outputs_are_replaced(tmp_path: Path, manifest: str | None) -> None:
    """An empty folder, and a folder of ours whatever its state, even with strange files in it."""
    target = tmp_path / "student"
    target.mkdir()
    if manifest is not None:
        (target / "_manifest.json").write_text(manifest)
        (target / "model.safetensors").write_text("old")
    writer = OutputWriter(target, "student", {}, {})
    writer.write_json("new.json", 1)
    writer.finish()
    assert sorted(path.name for path in target.iterdir()) == ["_manifest.json", "new.json"]


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    """However far above it the file lies."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"x: .*file is not a folder; mend the path"):
        check_writable(tmp_path / "file" / "deep" / "x")
    with pytest.raises(MachineError, match="is not a folder"):
        OutputWriter(tmp_path / "file" / "out", "student", {}, {})


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried in the nearest folder that is there; root may write everywhere, so it is tried by a stand-in."""
    tried: list[Path] = []

    def make_aside(folder: Path) -> Path:
        tried.append(folder)
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("cprd_pipeline.store.places.make_aside", make_aside)
    with pytest.raises(MachineError, match=r"report\.json: .* cannot be written \(Read-only file system\); mend its permissions"):
        check_writable(tmp_path / "new" / "report.json")
    assert tried == [tmp_path]


def test_trying_leaves_nothing_behind(tmp_path: Path) -> None:
    """Not even the folders that are missing."""
    check_writable(tmp_path / "new" / "report.json")
    assert list(tmp_path.iterdir()) == []


def test_kinds_are_named_as_people_do(tmp_path: Path) -> None:
    """An evaluation, a corpus."""
    OutputWriter(tmp_path / "made", "evaluation", {}, {}).finish()
    with pytest.raises(StoreError, match=r"made: an evaluation folder, which a corpus folder would replace"):
        check_output_place(tmp_path / "made", "corpus")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no folder that nobody can write")
def test_a_store_that_nobody_can_make_is_refused(tmp_path: Path) -> None:
    """One that is there may be read-only, if nothing is left to buy; an address is not tried."""
    with pytest.raises(MachineError, match=r"store=/proc/scores: /proc cannot be written"):
        check_store_place("/proc/scores")
    (tmp_path / "scores" / "_delta_log").mkdir(parents=True)
    for uri in (str(tmp_path / "new"), str(tmp_path / "scores"), "memory://scores"):
        check_store_place(uri)


def test_a_cache_that_is_a_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPRD_CACHE names it."""
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("CPRD_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        MachineError, match=r"^CPRD_CACHE=.*cache: .*/cache is not a folder; name another folder in the variable CPRD_CACHE"
    ):
        OutputWriter(tmp_path / "out", "student", {}, {})
