"""Two processes with the same command: one works, the other says so; a dead one holds nothing."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store import run_lock
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter

HOLD = """
import sys, time
from pathlib import Path
from cprd_pipeline.store.output import OutputWriter
writer = OutputWriter(Path(sys.argv[1]), "candidates", {}, {})
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def holder(target: Path) -> Iterator[None]:
    """Another process that is making the output; killed without a chance to clean up."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(target)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield
        finally:
            process.send_signal(signal.SIGKILL)


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    """Then it takes its place. Other settings are another output."""
    target = tmp_path / "out"
    with holder(target):
        with pytest.raises(StoreError, match=r"out: another process is at work with the same settings and inputs; wait"):
            OutputWriter(target, "candidates", {}, {})
        OutputWriter(target, "candidates", {"k": 2}, {})
    writer = OutputWriter(target, "candidates", {}, {})
    writer.write_table("a.parquet", pa.table({"n": [1]}))
    writer.finish()
    writer.forget_state()
    InputFolder(target, "candidates").verify()


def test_a_failed_run_holds_nothing(tmp_path: Path) -> None:
    """Of two writers of this process for one output, the last one that goes gives it up."""
    first, second = (OutputWriter(tmp_path / "out", "candidates", {}, {}) for _ in range(2))
    held = [path for path in run_lock._held if tmp_path in path.parents]
    assert len(held) == 1
    del first
    assert held[0] in run_lock._held
    del second
    assert held[0] not in run_lock._held


def test_processes_of_one_torchrun_share_the_hold(tmp_path: Path) -> None:
    """The first holds it for all."""
    with holder(tmp_path / "out"):
        other = OutputWriter(tmp_path / "out", "candidates", {}, {}, leads=False)
        before = sorted(other.state.rglob("*"))
        (other.folder / "_manifest.json").write_text("{}")
        OutputWriter(tmp_path / "out", "candidates", {}, {}, leads=False).forget_state()
        assert sorted(other.state.rglob("*")) == sorted([*before, other.folder / "_manifest.json"])


def test_a_finished_output_leaves_the_state_of_another_one_alone(tmp_path: Path) -> None:
    """Two outputs of one identity: the command of the finished one runs while another process makes the second."""
    first = OutputWriter(tmp_path / "first", "candidates", {}, {})
    first.write_table("a.parquet", pa.table({"n": [1]}))
    first.finish()
    first.forget_state()
    with holder(tmp_path / "second"):
        again = OutputWriter(tmp_path / "first", "candidates", {}, {})
        assert again.is_current()
        again.forget_state()
        assert again.folder.is_dir()
    again.forget_state()
    assert not again.state.exists()


def test_a_folder_that_is_removed_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a process that was done with it: a lock on a file that is gone would keep nobody off."""
    state, opened = tmp_path / "state", os.open

    def removed_once(path: Path, *rest: int, **options: int) -> int:
        handle = opened(path, *rest, **options)
        if not (tmp_path / "removed").exists():
            (tmp_path / "removed").mkdir()
            shutil.rmtree(state)
        return handle

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", removed_once)
        run_lock.hold(state, tmp_path / "out")
    assert (state / run_lock.LOCK).is_file()
    run_lock.let_go(state)


def test_what_the_holder_finished_meanwhile_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not there when this process looked first, and is there when it has the hold."""
    target = tmp_path / "out"

    def finish_first(state: Path, of: Path) -> None:
        monkeypatch.undo()
        monkeypatch.setenv("CPRD_CACHE", str(tmp_path / "other"))
        other = OutputWriter(of, "candidates", {}, {})
        other.write_table("a.parquet", pa.table({"n": [1]}))
        other.finish()

    monkeypatch.setattr("cprd_pipeline.store.output.hold", finish_first)
    assert OutputWriter(target, "candidates", {}, {}).is_current()


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOSYS])
def test_a_disk_without_locks_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    """Some network file systems."""

    def refuse(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", refuse)
    OutputWriter(tmp_path / "out", "candidates", {}, {}).write_table("a.parquet", pa.table({"n": [1]}))
    assert not [path for path in run_lock._held if tmp_path in path.parents]
