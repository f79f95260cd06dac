"""What killed writers leave behind: nobody reads it, and the next writer removes it, but never a living writer's file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cprd_pipeline.store import leftovers
from cprd_pipeline.store.atomic import write_file, write_json

_WRITER = """
import os, signal, sys
from pathlib import Path
from cprd_pipeline.store.atomic import write_file
def write(path):
    path.write_text('{"half')
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    path.write_text(sys.stdin.read())
write_file(Path(sys.argv[1]), write)
"""


def writer(path: Path, fate: str) -> subprocess.Popen[str]:
    """A process that writes a file: it dies half-way, or waits for the content on its stdin."""
    command = [sys.executable, "-c", _WRITER, str(path), fate]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def leave(folder: Path, numbered_by: str, process: int, age_s: float = 0.0) -> Path:
    """Half a file as a writer leaves it."""
    aside = folder / f".tmp-{numbered_by}-{process}-abcdefgh"
    aside.mkdir(parents=True)
    (aside / "a.json").write_text('{"half')
    for path in (aside / "a.json", aside):
        os.utime(path, (time.time() - age_s,) * 2)
    return aside


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_killed_writers_file_is_seen_by_nobody_and_removed_by_the_next_writer(tmp_path: Path) -> None:
    """No pattern finds the half file; any write into the folder removes it; another folder's stays for its own writers."""
    killed = writer(tmp_path / "a.json", "die")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert list(left.iterdir())
    assert not list(tmp_path.glob("*.json"))
    write_json(tmp_path / "elsewhere" / "b.json", 1)
    assert left.exists()
    write_json(tmp_path / "b.json", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "elsewhere"]


def test_a_living_writers_file_stays(tmp_path: Path) -> None:
    """Two write into one folder at a time; the slow one ends well."""
    slow = writer(tmp_path / "a.json", "wait")
    assert slow.stdout is not None
    assert slow.stdout.readline() == "writing\n"
    write_json(tmp_path / "b.json", 1)
    slow.communicate("whole")
    assert slow.returncode == 0
    assert (tmp_path / "a.json").read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


@pytest.mark.parametrize(("age_s", "stays"), [(3600.0, True), (leftovers.ABANDONED_AFTER_S + 60, False)])
def test_another_machines_file_is_judged_by_its_age(tmp_path: Path, age_s: float, stays: bool) -> None:
    """On a shared disk a number says nothing of a process elsewhere: not the dead one's here that has the same."""
    left = leave(tmp_path, "00000000", dead_process(), age_s)
    write_json(tmp_path / "b.json", 1)
    assert left.exists() is stays


def test_this_machines_file_is_judged_by_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that sleeps for days is alive, and so is one of another user; a dead one is dead at once."""
    here = leftovers.make_aside(tmp_path).name.split("-")[1]
    old = leave(tmp_path / "sleeping", here, os.getpid(), 10 * leftovers.ABANDONED_AFTER_S)
    new = leave(tmp_path / "dead", here, dead_process())
    foreign = leave(tmp_path / "foreign", here, 1)
    for folder in ("sleeping", "dead"):
        write_json(tmp_path / folder / "b.json", 1)

    def refuse(process: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(leftovers.os, "kill", refuse)
    write_json(tmp_path / "foreign" / "b.json", 1)
    assert (old.exists(), new.exists(), foreign.exists()) == (True, False, True)


def test_what_a_user_keeps_under_a_like_name_stays(tmp_path: Path) -> None:
    """Only names that this software gives are touched."""
    kept = [tmp_path / name for name in (".tmp-mine", ".tmp-12345678-notes-a", ".tmp")]
    for path in kept:
        path.mkdir()
        os.utime(path, (0, 0))
    write_file(tmp_path / "b.bin", lambda path: path.touch())
    assert all(path.exists() for path in kept)
