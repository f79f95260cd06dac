"""The commands `scores ...` and `compare` at the door: tables that fit, JSON, exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cprd_pipeline.store.scores import ScoreStore
from tests.small_run import make_small_run
from tests.store.score_pairs import append


def call(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "cprd_pipeline", *arguments]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, "COLUMNS": "80", **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache whose store has scores of one teacher."""
    store = ScoreStore(str(tmp_path / "cache" / "scores"))
    append(store, {(1, 1): 0.5, (1, 2): 1.5}, "f" * 32)
    append(store, {(2, 1): 2.5}, "f" * 32)
    return tmp_path / "cache"


def test_the_store_is_looked_after_by_five_commands(tmp_path: Path, cache: Path) -> None:
    """list, verify, compact, export and import, on the cache's store or another one, in 80 columns."""
    shown = [
        call("scores", *arguments, cwd=tmp_path, CPRD_CACHE=str(cache))
        for arguments in (["list"], ["verify"], ["compact"], ["export", "s.parquet"], ["import", "s.parquet", "--store", "other"])
    ]
    assert [one.returncode for one in shown] == [0] * 5, [one.stderr for one in shown]
    assert "3 scores (both)" in shown[0].stdout
    assert all(len(line.rstrip()) <= 80 for one in shown for line in one.stdout.splitlines() if str(cache) not in line)
    listed = call("scores", "list", "--store", "other", "--json", cwd=tmp_path)
    assert json.loads(listed.stdout)["results"]["teachers"][0]["rows"] == 3


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """No store, no file, no model."""
    for arguments, message in (
        (["scores", "list"], "there is no score store"),
        (["scores", "import", "nothing.parquet"], "nothing.parquet: there is no such file"),
        (["compare", "base", "cprd"], "data/reports/evaluation: there is no such folder"),
    ):
        done = call(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
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
