"""The command `compare` at the door, and bold in tables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_run import make_small_run


def call(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "cprd_pipeline", *arguments]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, "COLUMNS": "80", **environment}, capture_output=True, text=True, check=False
    )


def test_a_model_that_was_not_evaluated_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """The folder that is missing is named."""
    done = call("compare", "base", "cprd", cwd=tmp_path)
    assert done.returncode == 2
    assert "data/reports/evaluation: there is no such folder" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_is_clear_is_in_bold_and_the_asterisks_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of `compare` on a finished evaluation."""
    from cprd_pipeline.cli import _emphasised
    from cprd_pipeline.evaluation.run import run
    from cprd_pipeline.evaluation.settings import EvaluateSettings

    monkeypatch.chdir(tmp_path)
    made = make_small_run(tmp_path)
    run(EvaluateSettings(corpus=made.corpus.path, students=made.students, rankings=None, device="cpu", dtype="float32"))
    done = call("compare", "base", "cprd", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "RSUM" in done.stdout
    assert "**" not in done.stdout
    text = _emphasised("a **b** c")
    assert text.plain == "a b c"
    assert [(span.start, span.end, span.style) for span in text.spans] == [(2, 3, "bold")]
