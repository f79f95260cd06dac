"""SIGKILL wherever a file is put in place, again and again: the same command goes on each time, and ends with the same bytes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.mining import run as stage
from tests.mining.test_mine import bytes_of, mine_settings
from tests.mining.test_second_run import brought
from tests.tiny_encoders import simple_corpus

# Dies before or after the second file or folder is put in place.
_MORTAL = """
import os, signal, sys
def mortal(move):
    def wrapped(source, target):
        counter.append(target)
        if len(counter) == 2 and sys.argv[2] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        move(source, target)
        if len(counter) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return wrapped
counter = []
os.replace, os.rename = mortal(os.replace), mortal(os.rename)
from cprd_pipeline.mining.run import run
from cprd_pipeline.mining.settings import MineSettings
run(MineSettings.model_validate_json(sys.argv[1]))
"""


def test_killed_at_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Index, parts, manifest, folder and report, between a file and its record too: no half file is read, and none is left."""
    path = simple_corpus(tmp_path / "corpus", 12)
    encoder = Path(brought(tmp_path / "brought", Corpus(path)))
    options = {"k": 4, "index": {"kind": "hnsw", "hnsw_m": 4, "recall_sample": 0}, "part_queries": 100}
    settings = mine_settings(tmp_path, path, encoder, **options)
    kills = 0

    def survives(moment: str) -> bool:
        nonlocal kills
        done = subprocess.run([sys.executable, "-c", _MORTAL, settings.model_dump_json(), moment], check=False)
        kills += done.returncode == -signal.SIGKILL
        return done.returncode == 0

    # A file and its record come together: killed between them every time, no run would get any further.
    while not (survives("before") or survives("after")):
        assert kills < 30
    assert kills > 8
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and ".tmp-" in path.parent.name]
    assert settings.report.is_file()
    monkeypatch.setenv("CPRD_CACHE", str(tmp_path / "other-cache"))
    stage.run(mine_settings(tmp_path, path, encoder, **options, output=tmp_path / "unkilled"))
    assert bytes_of(settings.output) == bytes_of(tmp_path / "unkilled")
