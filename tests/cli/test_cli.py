"""The command line: light at the door, one line for the user's errors, results on stdout."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cprd_pipeline import __version__
from cprd_pipeline.errors import CprdError

CLI = [sys.executable, "-m", "cprd_pipeline"]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_help_imports_no_heavy_library(tmp_path: Path) -> None:
    """`--help` needs no torch, transformers, faiss, polars, pyarrow or deltalake."""
    program = (
        "import sys\nfrom cprd_pipeline.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'faiss', 'polars', 'pyarrow', 'deltalake', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("prepare", "train-teacher", "mine", "score-teacher", "distill", "evaluate", "report", "init"):
        assert command in done.stdout


def test_version(tmp_path: Path) -> None:
    """The version stands in one place."""
    assert run("--version", cwd=tmp_path).stdout.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mine",), "stages/mine.yaml: there is no such settings file; run inside a project folder"),
        (("distill", "--config", "empty.yaml"), "objective cprd needs rankings"),
        (
            ("distill", "--config", "empty.yaml", "--set", "learnin_rate=1"),
            "unknown setting learnin_rate; did you mean learning_rate?",
        ),
        (("distill", "--config", "empty.yaml", "--set", "cprd.wights=soft"), "unknown setting cprd.wights; did you mean weights?"),
        (("distill", "--config", "empty.yaml", "--set", "batch_size=1"), "batch_size is 1; expected greater than or equal to 2"),
        (("distill", "--config", "empty.yaml", "--set", "objective"), "no '='; expected --set key=value"),
        (("distill", "--config", "list.yaml"), "holds a list; expected a mapping"),
        (("distill", "--config", "broken.yaml"), "not valid YAML at line 3"),
        (
            ("distill", "--config", "empty.yaml", "--set", "objective=itc", "--set", "corpus=nowhere"),
            "nowhere: there is no such folder",
        ),
        (
            ("prepare", "--config", "empty.yaml", "--set", "files.paths=a.json"),
            "source is scenes, the generated world, but files names others; set source: auto",
        ),
        (
            ("mine", "--config", "empty.yaml", "--set", "report=notes.txt"),
            "report: notes.txt does not end in .json; a report is a JSON",
        ),
        (("mine", "--config", "empty.yaml", "--set", "report=list.yaml/x.json"), "list.yaml is not a folder; mend the path"),
        (
            ("distill", "--config", "empty.yaml", "--set", "rankings=[r]", "--set", "steps=20"),
            "distillation begins at step 50 of 20, so that the teacher would never be heard; lower distillation_from_step",
        ),
        (
            ("train-teacher", "--config", "empty.yaml", "--set", "negatives=100"),
            "negatives is 100, and a pair has 63 others in its batch; lower it or raise batch_size",
        ),
        (("init", "list.yaml"), "list.yaml: is a file; expected a new or empty folder"),
        (("mine", "--k", "10"), "No such option: --k; settings are given as --set key=value, without spaces around the =; see `"),
        (("mine", "--set", "k", "=", "10"), "(= 10); settings are given as --set key=value"),
        (("inspect",), "error: Missing argument 'PATH'; see `"),
        (
            ("inspect", "list.yaml"),
            "list.yaml: not the report of a stage; expected a stage's report (.json in data/reports), an output",
        ),
    ],
)
def test_a_users_mistake_is_one_red_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """What was found, what was expected, what to do; no traceback, nothing on stdout."""
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: 1\nb: [\n")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("example", "inside", "not_inside"), [("demo", "smoke", "coco"), ("coco", "distill.yaml", "coco")])
def test_init_writes_a_project_that_dvc_accepts(tmp_path: Path, example: str, inside: str, not_inside: str) -> None:
    """dvc.yaml without the package's source, all stage files, and nothing is overwritten the second time."""
    assert run("init", "project", "--example", example, cwd=tmp_path).returncode == 0
    text = (tmp_path / "project" / "dvc.yaml").read_text()
    assert "cprd_pipeline/" not in text
    assert (tmp_path / "project" / "stages" / inside).exists()
    assert not (tmp_path / "project" / "stages" / not_inside).exists()
    listed = subprocess.run(
        f"git init -q . && {sys.executable} -m dvc init -q && {sys.executable} -m dvc stage list --name-only",
        cwd=tmp_path / "project",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "score_teacher" in listed.stdout
    assert ("train_teacher" in listed.stdout) == (example == "demo")
    again = run("init", "project", cwd=tmp_path)
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_init_without_a_choice_brings_the_demo(tmp_path: Path) -> None:
    """With the study beside it."""
    assert run("init", "project", cwd=tmp_path).returncode == 0
    assert (tmp_path / "project" / "stages" / "study" / "dvc.yaml").is_file()


def test_json_is_the_whole_report(tmp_path: Path) -> None:
    """`--json` gives settings, results and machine, and nothing else on stdout."""
    root = Path(__file__).parents[2]
    done = run("prepare", "--config", str(root / "stages/smoke/prepare.yaml"), "--set", "scenes.seed=5", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["stage"] == "prepare"
    assert report["settings"]["scenes"]["seed"] == 5
    assert report["machine"]["cprd-pipeline"] == __version__


def test_ctrl_c_keeps_the_state_and_says_so(tmp_path: Path) -> None:
    """SIGINT in the middle of a stage: one line, exit code 130; the same command then ends well."""
    root = Path(__file__).parents[2]
    small = ["prepare", "--config", str(root / "stages/smoke/prepare.yaml"), "--set"]
    command = [*CLI, *small, "scenes.splits={train: {images: 6000}}"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    first = process.stderr.read(1)  # the bar has begun, so the stage is at work
    process.send_signal(signal.SIGINT)
    output, rest = process.communicate(timeout=60)
    assert process.returncode == 130, first + rest
    assert output == ""
    assert "interrupted: finished parts are kept, the same command goes on" in rest
    assert "Traceback" not in rest
    assert run(*small, "scenes.splits={train: {images: 60}}", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(("columns", "widest"), [("40", 40), (None, 100)])
def test_a_table_is_as_wide_as_it_is_told(tmp_path: Path, columns: str | None, widest: int) -> None:
    """COLUMNS counts in a pipe, too; without it there are a hundred."""
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    root = Path(__file__).parents[2]
    command = [*CLI, "prepare", "--config", str(root / "stages/smoke/prepare.yaml"), "--set", f"output={'long/' * 15}corpus"]
    environment |= {"COLUMNS": columns} if columns else {}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert max(len(line) for line in done.stdout.splitlines()) <= widest
    assert (len(max(done.stdout.splitlines(), key=len)) > 40) == (columns is None)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no folder that even root cannot write")
@pytest.mark.parametrize(
    ("command", "key"),
    [
        *(("evaluate", key) for key in ("report", "output", "metrics")),
        *(("study", key) for key in ("page", "markdown")),
        *((command, "output") for command in ("prepare", "mine", "report")),
        ("score-teacher", "store"),
    ],
)
def test_what_cannot_be_written_is_known_before_a_stage_works(tmp_path: Path, command: str, key: str) -> None:
    """Each file that a stage writes, its output, and the scores' store: before it looks for what it reads."""
    (tmp_path / "empty.yaml").write_text("")
    config = str(Path(__file__).parents[2] / "stages/study/study.yaml") if command == "study" else "empty.yaml"
    done = run(command, "--config", config, "--set", f"{key}=/proc/new/x.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "/proc/new/x.json: /proc cannot be written; mend its permissions, or mend the path in the settings" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["empty.yaml"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no folder that even root cannot write")
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable that a user set, not by a folder deep inside."""
    (tmp_path / "empty.yaml").write_text("")
    monkeypatch.setenv("CPRD_CACHE", "/proc/cache")
    done = run("prepare", "--config", "empty.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: CPRD_CACHE=/proc/cache: /proc cannot be written; ")
    assert done.stderr.endswith("name another folder in the variable CPRD_CACHE\n")


def test_a_report_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    """Before the stage works."""
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "r.json").mkdir()
    done = run("mine", "--config", "empty.yaml", "--set", "report=r.json", cwd=tmp_path)
    assert done.stderr == "error: r.json: a folder lies where a file is to be written; mend the path in the settings\n"


@pytest.mark.parametrize(
    ("example", "told"), [("demo", "Next: git init;"), ("coco", "Next: name your pairs and models in stages/, then:")]
)
def test_init_here_sends_nobody_elsewhere(tmp_path: Path, example: str, told: str) -> None:
    """The folder is the one that the user is in."""
    done = run("init", ".", "--example", example, cwd=tmp_path)
    assert done.stdout.splitlines()[-1].startswith(told)


@pytest.mark.parametrize("arguments", [(), ("scores",)])
def test_without_a_command_there_is_help_alone(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """And no line about an error."""
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == CprdError.exit_code
    assert "Usage:" in done.stdout + done.stderr
    assert "error" not in done.stderr
