"""SIGKILL in the middle, then the same command."""

import os
import signal
import subprocess
import sys

import pytest

import cprd_pipeline.evaluation.run as stage
from cprd_pipeline.store.folder import cache_folder

_KILLED_AFTER = """
import os, signal, sys
import cprd_pipeline.evaluation.run as stage
from cprd_pipeline.evaluation.settings import EvaluateSettings
from cprd_pipeline.store.output import OutputWriter

left = int(sys.argv[1])
write = OutputWriter.write_table

def write_then_die(self, name, table):
    global left
    write(self, name, table)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

OutputWriter.write_table = write_then_die
stage.run(EvaluateSettings.model_validate_json(sys.argv[2]))
"""


def content(folder):
    """Every file's bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("parts", [1, 5])
def test_a_killed_evaluation_goes_on(made, settings_of, parts, monkeypatch):
    """After any part: what is finished is not computed again, and the bytes are those of a run that was never killed."""
    stage.run(whole := settings_of(made))
    settings = settings_of(made, output=made.root / "again", metrics=made.root / "m.json", report=made.root / "r.json")
    command = [sys.executable, "-c", _KILLED_AFTER, str(parts), settings.model_dump_json()]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not settings.output.exists()
    assert not settings.metrics.exists()
    embedded = []
    embed = stage.embed_student
    monkeypatch.setattr(stage, "embed_student", lambda name, *rest: embedded.append(name) or embed(name, *rest))
    stage.run(settings)
    # Two parts a student, and the teacher's, which needs the base student's embeddings again.
    assert embedded == (["base", "cprd", "base"] if parts == 1 else [])
    assert content(settings.output) == content(whole.output)
    assert settings.metrics.read_bytes() == whole.metrics.read_bytes()


def test_a_damaged_part_of_the_state_is_made_again(made, settings_of, capsys):
    """How much of the heads was scored, of a run that died before it was done."""
    stage.run(whole := settings_of(made))
    settings = settings_of(made, output=made.root / "again", metrics=made.root / "m.json", report=made.root / "r.json")
    command = [sys.executable, "-c", _KILLED_AFTER, "5", settings.model_dump_json()]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, check=False)
    (heads,) = (cache_folder() / "state" / "evaluation").glob("*/output/heads.json")
    heads.write_text("{")
    stage.run(settings)
    assert "heads.json: changed after it was written" in capsys.readouterr().err
    assert content(settings.output) == content(whole.output)
