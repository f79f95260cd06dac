"""Output folders: whole or not there, parts found again after a kill, damage reported."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from cprd_pipeline.errors import MachineError, StoreError
from cprd_pipeline.store import atomic
from cprd_pipeline.store.folder import InputFolder, cache_folder
from cprd_pipeline.store.output import OutputWriter

TABLE = pa.table({"n": [1, 2, 3]})


def writer_of(folder: Path, **settings: object) -> OutputWriter:
    return OutputWriter(folder / "out", "candidates", settings, {"corpus": "c"})


def test_a_finished_folder_reads_back(tmp_path: Path) -> None:
    """Parts, rows and settings are in the manifest; the state is gone when it is let go of."""
    writer = writer_of(tmp_path, k=3)
    writer.write_table("a.parquet", TABLE)
    writer.write_json("b.json", {"x": 1})
    writer.finish()
    folder = InputFolder(tmp_path / "out", "candidates")
    assert folder.table("a.parquet").equals(TABLE)
    assert [(part.name, part.rows) for part in folder.manifest.parts] == [("a.parquet", 3), ("b.json", None)]
    assert folder.manifest.settings == {"k": 3}
    assert writer.state.exists()
    writer.forget_state()
    assert not writer.state.exists()
    assert folder.table("a.parquet").equals(TABLE)


def test_nothing_is_in_place_before_finish(tmp_path: Path) -> None:
    """A reader never sees half an output."""
    writer_of(tmp_path).write_table("a.parquet", TABLE)
    with pytest.raises(StoreError, match=r"no such folder.*cprd-pipeline mine"):
        InputFolder(tmp_path / "out", "candidates")


def test_a_second_writer_finds_the_parts_of_a_killed_one(tmp_path: Path) -> None:
    """Same kind, settings and inputs: the same state; other settings: another."""
    writer_of(tmp_path, k=3).write_table("a.parquet", TABLE)
    assert writer_of(tmp_path, k=3).has("a.parquet")
    assert not writer_of(tmp_path, k=4).has("a.parquet")


def test_a_part_that_changed_on_disk_is_reported_and_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No silent repair: the damaged bytes stay for inspection, and the part counts as not made."""
    writer = writer_of(tmp_path)
    writer.write_table("a.parquet", TABLE)
    (writer.folder / "a.parquet").write_bytes(b"flipped")
    again = writer_of(tmp_path)
    assert not again.has("a.parquet")
    assert (again.state / "damaged" / "a.parquet").read_bytes() == b"flipped"
    assert "changed after it was written" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_finished_part_is_refused(tmp_path: Path, damage: str) -> None:
    """A flipped bit, a short file and a missing file each name the part and the next command."""
    writer = writer_of(tmp_path)
    writer.write_table("a.parquet", TABLE)
    writer.finish()
    path = tmp_path / "out" / "a.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(bytes(content) if damage == "flip" else bytes(content[:-5]))
    with pytest.raises(StoreError, match=r"a\.parquet: .*(changed|gone).*make it again with `cprd-pipeline mine`"):
        InputFolder(tmp_path / "out", "candidates").verify()
    assert not writer_of(tmp_path).is_current()


def test_is_current_only_for_the_same_settings_and_inputs(tmp_path: Path) -> None:
    """An output of other settings is made again."""
    writer = writer_of(tmp_path, k=3)
    writer.write_table("a.parquet", TABLE)
    writer.finish()
    assert writer_of(tmp_path, k=3).is_current()
    assert not writer_of(tmp_path, k=4).is_current()


def test_an_older_output_is_replaced_whole(tmp_path: Path) -> None:
    """No part of the old folder survives in the new one."""
    for k, name in ((3, "old.parquet"), (4, "new.parquet")):
        writer = writer_of(tmp_path, k=k)
        writer.write_table(name, TABLE)
        writer.finish()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_manifest.json", "new.parquet"]


def test_files_that_no_part_names_do_not_reach_the_output(tmp_path: Path) -> None:
    """What a library left beside the parts is not shipped unseen."""
    writer = writer_of(tmp_path)
    writer.write_table("a.parquet", TABLE)
    (writer.folder / "stray.txt").write_text("x")
    writer.finish()
    assert not (tmp_path / "out" / "stray.txt").exists()


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "not a manifest of ours"),
        ('{"parts": [1]}', "not a manifest of ours"),
        ('{"kind": "rankings", "settings": {}, "inputs": {}, "parts": [], "schema_version": 1}', "a rankings folder"),
        ('{"kind": "candidates", "settings": {}, "inputs": {}, "parts": [], "schema_version": 99}', "schema 99"),
    ],
)
def test_foreign_manifests_are_refused(tmp_path: Path, manifest: str, message: str) -> None:
    """Broken JSON, another form, another kind, another schema."""
    (tmp_path / "_manifest.json").write_text(manifest)
    with pytest.raises(StoreError, match=message):
        InputFolder(tmp_path, "candidates")


def test_equal_content_has_equal_bytes(tmp_path: Path) -> None:
    """Two runs of the same work give the same files, the manifest included."""
    for name in ("one", "two"):
        writer = writer_of(tmp_path / name, k=3)
        writer.write_table("a.parquet", TABLE)
        writer.finish()
    read = [{path.name: path.read_bytes() for path in (tmp_path / name / "out").iterdir()} for name in ("one", "two")]
    assert read[0] == read[1]


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC while writing: one clear line, nothing half written, the earlier content untouched."""
    target = tmp_path / "f.json"
    atomic.write_json(target, {"old": True})

    def full(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(MachineError, match="the disk is full; free some space and run the same command again"):
        atomic.write_file(target, full)
    assert json.loads(target.read_text()) == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["f.json"]


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path: Path) -> None:
    """SIGKILL inside the writer: the target is what it was."""
    target = tmp_path / "f.bin"
    target.write_bytes(b"old")
    program = (
        "import os, signal, sys; from pathlib import Path; from cprd_pipeline.store.atomic import write_file\n"
        "def half(path):\n    path.write_bytes(b'new'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_file(Path(sys.argv[1]), half)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`CPRD_CACHE` names it; without it, it is data/."""
    monkeypatch.setenv("CPRD_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
    monkeypatch.delenv("CPRD_CACHE")
    assert cache_folder() == Path("data")


def test_two_runs_at_once_break_nothing(tmp_path: Path) -> None:
    """The second one has lost its parts to the first, says so, and leaves the output whole."""
    first, second = writer_of(tmp_path), writer_of(tmp_path)
    for writer in (first, second):
        writer.write_table("a.parquet", TABLE)
    first.finish()
    first.forget_state()
    second.write_table("b.parquet", TABLE)
    with pytest.raises(StoreError, match=r"a\.parquet: is gone; another run of the same command.*start this one again"):
        second.finish()
    InputFolder(tmp_path / "out", "candidates").verify()


def test_an_output_that_was_removed_after_it_was_finished_is_put_back(tmp_path: Path) -> None:
    """As DVC does with that of a stage that failed later: no part is made again, and the bytes are the same."""
    writer = writer_of(tmp_path)
    writer.write_table("a.parquet", TABLE)
    writer.finish()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    shutil.rmtree(tmp_path / "out")
    again = writer_of(tmp_path)
    assert again.has("a.parquet")
    # A library's folder is taken in file by file, and the manifest is none of its parts.
    assert [path.name for path in again.folder.iterdir()] == ["a.parquet"]
    again.finish()
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_what_is_found_finished_keeps_its_state_until_it_is_concluded(tmp_path: Path) -> None:
    """Its report may fail again, and DVC remove the output: no part is made again even then."""
    writer = writer_of(tmp_path)
    writer.write_table("a.parquet", TABLE)
    writer.finish()
    found = writer_of(tmp_path)
    assert found.is_current()
    shutil.rmtree(tmp_path / "out")
    assert writer_of(tmp_path).has("a.parquet")
    found.forget_state()
    assert not writer.state.exists()


def test_another_identity_is_seen_without_reading_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output of other settings may hold terabytes."""
    writer = writer_of(tmp_path)
    writer.write_table("a.parquet", TABLE)
    writer.finish()
    monkeypatch.setattr(InputFolder, "verify", None)
    assert not writer_of(tmp_path, k=2).is_current()


def test_a_renewed_output_stays_until_the_new_one_is_finished(tmp_path: Path) -> None:
    """Of equal identity; a killed renewal is gone on with, by the next run that finds the output out of date."""
    writer = writer_of(tmp_path)
    writer.write_table("a.parquet", TABLE)
    writer.finish()
    writer.forget_state()
    other = pa.table({"n": [7]})
    renewing = writer_of(tmp_path)
    assert renewing.is_current()
    renewing.renew()
    assert not renewing.has("a.parquet")
    renewing.write_table("a.parquet", other)
    assert InputFolder(tmp_path / "out", "candidates").table("a.parquet").equals(TABLE)
    again = writer_of(tmp_path)
    assert again.is_current()
    again.renew()
    assert again.has("a.parquet")
    again.finish()
    assert InputFolder(tmp_path / "out", "candidates").table("a.parquet").equals(other)
    again.forget_state()
    assert not again.state.exists()


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    """An output on a larger disk: filled through the link, and replaced through it."""
    large = tmp_path / "large"
    large.mkdir()
    (tmp_path / "out").symlink_to(large)
    for k in (1, 2):
        writer = writer_of(tmp_path, k=k)
        writer.write_table("a.parquet", TABLE)
        writer.finish()
        assert (tmp_path / "out").is_symlink()
        assert InputFolder(large, "candidates").manifest.settings == {"k": k}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["large", "out"]


def test_a_link_to_where_nobody_may_write_is_refused_before_the_work(tmp_path: Path) -> None:
    """The folder that it leads to counts."""
    (tmp_path / "out").symlink_to("/proc/new")
    with pytest.raises(MachineError, match=r"out: /proc cannot be written"):
        writer_of(tmp_path)


def test_state_that_is_let_go_of_takes_no_other_state_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may begin an equal output while the old state is being removed."""
    writer = writer_of(tmp_path)
    writer.write_table("a.parquet", TABLE)
    writer.finish()
    remove, began = shutil.rmtree, []

    def begin_then_remove(path: Path, *, ignore_errors: bool) -> None:
        if not began:
            began.append(OutputWriter(tmp_path / "other", "candidates", {}, {"corpus": "c"}))
            began[0].write_table("a.parquet", TABLE)
        remove(path, ignore_errors=ignore_errors)

    with monkeypatch.context() as patch:
        patch.setattr("cprd_pipeline.store.output.shutil.rmtree", begin_then_remove)
        writer.forget_state()
    began[0].finish()
    began[0].forget_state()
    assert list((cache_folder() / "state" / "candidates").iterdir()) == []


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EPERM, errno.ENOTSUP])
def test_where_files_have_no_second_names_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    """On another disk, or on one that knows no links."""

    def refuse(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(atomic.os, "link", refuse)
    writer = writer_of(tmp_path)
    writer.write_table("a.parquet", TABLE)
    writer.finish()
    InputFolder(tmp_path / "out", "candidates").verify()
    assert (tmp_path / "out" / "a.parquet").stat().st_nlink == 1


@pytest.mark.parametrize("call", ["link", "copyfile"])
def test_a_disk_that_is_full_is_one_line_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Of a copy that fails nothing stays, and the finished parts are found again."""
    older = writer_of(tmp_path)
    older.write_table("a.parquet", TABLE)
    older.finish()
    newer = writer_of(tmp_path, k=2)
    newer.write_table("a.parquet", TABLE)

    def refuse(reason: int) -> Callable[..., None]:
        def refused(*_: object) -> None:
            raise OSError(reason, os.strerror(reason))

        return refused

    monkeypatch.setattr(atomic.os, "link", refuse(errno.ENOSPC if call == "link" else errno.EXDEV))
    monkeypatch.setattr(atomic.shutil, "copyfile", refuse(errno.ENOSPC))
    with pytest.raises(MachineError, match=r"out: the disk is full; free some space and run the same command again"):
        newer.finish()
    assert InputFolder(tmp_path / "out", "candidates").manifest.settings == {}
    assert not (tmp_path / ".out.new").exists()
    assert writer_of(tmp_path, k=2).has("a.parquet")
