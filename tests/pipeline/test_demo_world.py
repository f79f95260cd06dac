"""The whole chain at toy size through `dvc repro`, killed on the way and started again."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import deltalake
import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
OUTPUTS = ("corpus", "teacher", "candidates", "rankings", "students")
# Where a run is killed: a file that appears while the stage is at work.
MOMENTS = {
    "train_teacher": "state/teacher/*/checkpoints/step-*.pt",
    "base_student": "state/student/*/checkpoints/step-*.pt",
    "mine": "state/candidates/*/_parts/*.json",
    "score_teacher": "scores/_delta_log/*.json",
    "distill": "state/student/*/checkpoints/step-*.pt",
}


def environment() -> dict[str, str]:
    """The console script of this very environment, one thread for the same bits, no cache of another test."""
    kept = {key: value for key, value in os.environ.items() if key != "CPRD_CACHE"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}


def new_project(folder: Path) -> Path:
    """`init`, with the toy settings in place of the demo's."""
    done = subprocess.run(["cprd-pipeline", "init", str(folder)], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for file in (folder / "stages" / "smoke").glob("*.yaml"):
        shutil.copy(file, folder / "stages" / file.name)
    subprocess.run("git init -q . && dvc init -q", cwd=folder, env=environment(), shell=True, check=True)
    return folder


def repro(project: Path, *stages: str) -> str:
    """`dvc repro`; its output."""
    done = subprocess.run(["dvc", "repro", *stages], cwd=project, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def kill_when(project: Path, stage: str, ready: Callable[[], bool]) -> bool:
    """Start `dvc repro STAGE`, kill everything with SIGKILL once `ready`; whether it was still running then."""
    process = subprocess.Popen(
        ["dvc", "repro", stage],
        cwd=project,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while process.poll() is None and not ready():
        assert time.monotonic() < deadline, f"{stage}: nothing appeared"
        time.sleep(0.002)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def digests(project: Path) -> dict[str, str]:
    """Every file of every output."""
    return {
        path.relative_to(project).as_posix(): hashlib.blake2b(path.read_bytes()).hexdigest()
        for output in OUTPUTS
        for path in sorted((project / "data" / output).rglob("*"))
        if path.is_file()
    }


def stored_rows(project: Path) -> pl.DataFrame:
    """All rows of the score store, in a fixed order."""
    table = deltalake.DeltaTable(project / "data" / "scores").to_pyarrow_table()
    frame = pl.DataFrame(pl.from_arrow(table)).select("teacher", "image_digest", "caption_digest", "direction", "score")
    return frame.sort("teacher", "image_digest", "caption_digest", "direction")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose whole chain ran without being disturbed."""
    project = new_project(tmp_path_factory.mktemp("smoke") / "project")
    repro(project)
    return project


def test_the_chain_ends_with_metrics_and_a_page(finished: Path) -> None:
    """Every arm and the teacher's reranking have their numbers; the page is one file."""
    metrics = json.loads((finished / "data" / "reports" / "metrics.json").read_text())
    assert {"base", "cprd", "kl"} <= set(metrics)
    assert all(0 <= metrics[name]["rsum"] <= 600 for name in ("base", "cprd", "kl"))
    assert "<html" in (finished / "data" / "reports" / "report.html").read_text()


def test_a_second_repro_does_nothing(finished: Path) -> None:
    """Nothing changed, so no stage runs."""
    assert "Running stage" not in repro(finished)


def test_dvc_shows_the_same_figures(finished: Path) -> None:
    """`dvc metrics show` reads the metrics file."""
    command = ["dvc", "metrics", "show", "--json"]
    shown = subprocess.run(command, cwd=finished, env=environment(), capture_output=True, text=True, check=True)
    metrics = json.loads((finished / "data" / "reports" / "metrics.json").read_text())
    assert json.loads(shown.stdout)[""]["data"]["data/reports/metrics.json"]["data"] == metrics


def test_a_run_killed_in_every_stage_ends_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    """SIGKILL during each long stage, then `dvc repro`: the same files and the same rows in the store."""
    project = new_project(tmp_path / "project")
    killed = []
    for stage, pattern in MOMENTS.items():
        before = set((project / "data").glob(pattern))
        if kill_when(project, stage, lambda pattern=pattern, before=before: bool(set((project / "data").glob(pattern)) - before)):
            killed.append(stage)
    repro(project)
    assert killed == list(MOMENTS)
    assert digests(project) == digests(finished)
    assert stored_rows(project).equals(stored_rows(finished))


def test_changing_the_objective_reruns_nothing_before_it(finished: Path) -> None:
    """A value of distill.yaml changes: the teacher, the miner and the base student rest."""
    file = finished / "stages" / "distill.yaml"
    text = file.read_text()
    file.write_text(text.replace("distillation_weight: 4.0", "distillation_weight: 5.0"))
    output = repro(finished)
    file.write_text(text)
    ran = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
    assert ran == ["distill", "evaluate", "report"]


def test_a_larger_k_scores_only_new_pairs(finished: Path) -> None:
    """The store keeps what it has; the report counts what that saved."""
    file = finished / "stages" / "mine.yaml"
    text = file.read_text()
    rows = len(stored_rows(finished))
    k = int(next(line for line in text.splitlines() if line.startswith("k:")).split()[1])
    file.write_text(text.replace(f"k: {k}", f"k: {k + 2}"))
    repro(finished, "score_teacher")
    file.write_text(text)
    report = json.loads((finished / "data" / "reports" / "score_teacher.json").read_text())["results"]
    assert report["stored"] > 0
    assert report["scored"] == len(stored_rows(finished)) - rows
    assert 0 < report["scored"] < report["stored"]
