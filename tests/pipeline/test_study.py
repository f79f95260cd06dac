"""The study at toy size: every stage of its graph in DVC's order, the one command that runs it, and what a user may do wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cprd_pipeline.errors import SettingsError, StoreError
from cprd_pipeline.evaluation.study.graph import reproduce
from cprd_pipeline.project import write_project
from cprd_pipeline.store.folder import read_manifest
from tests.pipeline.all_stages import environment, run_all_stages

ARMS = ("itc", "kl", "margin_mse", "listmle", "cprd", "cprd_shuffled", "cprd_random", "cprd_unpaired")
SEEDS = (0, 1)


def call(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "cprd_pipeline", *arguments]
    return subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, check=False)


def new_project(folder: Path) -> Path:
    """`init`, the toy settings, two seeds, and DVC without Git."""
    write_project(folder)
    for file in (folder / "stages" / "smoke").glob("*.yaml"):
        shutil.copy(file, folder / "stages" / file.name)
    study = folder / "stages" / "study" / "study.yaml"
    values = yaml.safe_load(study.read_text())
    smaller = {"seeds": list(SEEDS), "shared": {"cosine_steps": 5}, "replicates": 200}
    study.write_text(yaml.safe_dump(values | smaller, sort_keys=False))
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every stage that the study needs ran once."""
    project = new_project(tmp_path_factory.mktemp("study") / "project")
    stages = run_all_stages(project, "stages/study/dvc.yaml:study")
    assert "score_teacher" in stages
    assert "distill" not in stages, "an arm of the main graph is none of the study's"
    assert len([stage for stage in stages if ":train@" in stage]) == len(ARMS) * len(SEEDS)
    assert stages[-1] == "stages/study/dvc.yaml:study"
    return project


def test_arms_share_everything_but_what_they_change(finished: Path) -> None:
    """The same corpus, steps and batches; the seed is the student's own, the rankings are the arm's."""
    students = finished / "data" / "study" / "students"
    manifests = {(arm, seed): read_manifest(students / f"{arm}-{seed}", "student") for arm in ARMS for seed in SEEDS}
    assert len({manifest.inputs["corpus"] for manifest in manifests.values()}) == 1
    for (_, seed), manifest in manifests.items():
        assert manifest.settings["seed"] == seed
        assert (manifest.settings["steps"], manifest.settings["batch_size"]) == (30, 16)
    rankings = {arm: manifests[arm, 0].inputs.get("rankings 0") for arm in ARMS}
    assert rankings["itc"] is None
    assert rankings["cprd"] == rankings["kl"] == rankings["cprd_shuffled"] != rankings["cprd_random"]


def test_all_arms_and_findings_are_reported(finished: Path) -> None:
    """A figure for each seed, differences from ITC, agreement by rank with the truth, cosines of all that have a teacher."""
    reports = finished / "data" / "reports"
    results = json.loads((reports / "study.json").read_text())["results"]
    assert [arm["name"] for arm in results["arms"]] == list(ARMS)
    assert all(len(arm["rsum"]) == len(SEEDS) and all(0 <= value <= 600 for value in arm["rsum"]) for arm in results["arms"])
    assert [one["more"] for one in results["comparisons"] if one["less"] == "itc"] == list(ARMS[1:])
    assert set(results["cosines"]) == set(ARMS[1:])
    assert results["bands"]["truth"] is not None
    assert results["ndcg"] == "graded nDCG@10"
    assert len(results["findings"]) == 2 + 7
    assert "not measured" not in {one["verdict"] for one in results["findings"][2:]}
    assert (reports / "study.md").read_text().count("| ITC alone |") == 2
    assert "</html>" in (reports / "study.html").read_text()


def test_json_is_the_report(finished: Path) -> None:
    """`--json` prints what the report holds, and nothing else on stdout."""
    done = call(finished, "study", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"] == json.loads((finished / "data/reports/study.json").read_text())["results"]


def test_a_student_that_is_there_is_not_trained_again(finished: Path) -> None:
    """The same command says so."""
    assert "up to date" in call(finished, "study", "--train", "kl", "--seed", "1").stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new project as the working folder."""
    folder = new_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def only_stage(project: Path, command: str) -> None:
    """A stage in place of the study's whole graph."""
    stage = {"wdir": "../..", "cmd": command, "outs": [{"data/reports/study.json": {"cache": False}}]}
    (project / "stages" / "study" / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"study": stage}}))


def test_run_lets_dvc_do_it_and_shows_the_table(finished: Path, project: Path) -> None:
    """With this environment's commands, whatever stands in PATH; what dvc says goes to stderr, the table to stdout."""
    report = finished / "data" / "reports" / "study.json"
    only_stage(project, f"cprd-pipeline --version && mkdir -p data/reports && cp {report} data/reports/")
    command = [sys.executable, "-m", "cprd_pipeline", "study", "--run"]
    elsewhere = {**environment(), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=project, env=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "CPRD, order shuffled" in done.stdout
    assert "Running stage" not in done.stdout
    assert "Running stage" in done.stderr


def test_run_ends_with_one_line_when_a_stage_fails(project: Path) -> None:
    """After what the stage itself said."""
    only_stage(project, "false")
    with pytest.raises(StoreError, match=r"dvc repro stages/study/dvc.yaml ended with exit code \d+; mend what it says above"):
        reproduce(plain=True)


def test_run_needs_a_project_and_takes_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC would never see what is set on the command line."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"stages/study/dvc.yaml: there is no such file; run inside a project that"):
        reproduce(plain=True)
    with pytest.raises(SettingsError, match=r"--run with --config, --set or --train; expected --run alone; edit stages/study/stu"):
        reproduce(plain=False)
    assert call(tmp_path, "study", "--run", "--set", "seeds=[1,2]").returncode == 2


def test_an_empty_project_is_told_what_to_run(project: Path) -> None:
    """The students are missing."""
    done = call(project, "study")
    assert (done.returncode, done.stdout) == (2, "")
    assert "data/study/students/itc-0: there is no such folder" in done.stderr
    assert "run `cprd-pipeline study --run`" in done.stderr


def test_an_installed_project_has_no_code_to_depend_on(project: Path) -> None:
    """Neither graph names the package's source, which the user has elsewhere."""
    for path in (project / "dvc.yaml", project / "stages" / "study" / "dvc.yaml"):
        text = path.read_text()
        assert "- cprd_pipeline/" not in text
        assert all(stage.get("deps") != [] for stage in yaml.safe_load(text)["stages"].values())
