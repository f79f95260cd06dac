"""stages/study/, the code and the main graph agree with each other."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cprd_pipeline.evaluation.study.settings import StudySettings
from cprd_pipeline.settings import load_settings
from tests.architecture.test_pipeline_file import GRAPH, STAGES, knobs, paths_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "stages" / "study"
STUDY: dict[str, Any] = yaml.safe_load((FOLDER / "dvc.yaml").read_text())
SETTINGS = load_settings(StudySettings, FOLDER / "study.yaml")
ENTRY = {
    "cprd-pipeline mine": ["mining.run"],
    "cprd-pipeline score-teacher": ["scoring.run"],
    "cprd-pipeline study --train": ["evaluation.study.settings", "distillation.run"],
    "cprd-pipeline study": ["evaluation.study.run", "reporting.study"],
}
ROOMS = {"cprd_pipeline", *(f"cprd_pipeline/{room}" for room in ("corpus", "store", "models", "evaluation", "evaluation/study"))}


def imported_by(stage: str) -> set[str]:
    """Files of all modules that a stage imports, directly or not; bare packages are covered by what is in them."""
    command = STUDY["stages"][stage]["cmd"]
    entries = next(entries for beginning, entries in ENTRY.items() if command.startswith(beginning))
    modules = {f"cprd_pipeline.{entry}" for entry in entries}
    modules |= {found for entry in list(modules) for found in GRAPH.find_upstream_modules(entry)}
    return {module.replace(".", "/") for module in modules} - ROOMS


@pytest.mark.parametrize("stage", STUDY["stages"])
def test_code_dependencies_are_what_the_stage_imports(stage: str) -> None:
    """As in the main graph: everything that is imported is covered, and no listed path is idle."""
    listed = [path for path in STUDY["stages"][stage]["deps"] if path.startswith("cprd_pipeline/")]
    files = imported_by(stage)
    covers = {path: {f for f in files if f == path.removesuffix(".py") or f.startswith(f"{path}/")} for path in listed}
    assert not files - set().union(*covers.values())
    assert not [path for path, covered in covers.items() if not covered]


@pytest.mark.parametrize("stage", STUDY["stages"])
def test_every_data_dependency_is_somebodys_output(stage: str) -> None:
    """Of a stage of the study or of the main graph, so that one command begins wherever it has to."""
    names = [f"{arm}-{seed}" for arm in SETTINGS.arms for seed in SETTINGS.seeds]
    outputs = set().union(*(paths_of(one["outs"]) for one in STAGES.values()))
    for one in STUDY["stages"].values():
        for path in paths_of(one["outs"]):
            outputs |= {path.replace("${item.arm}-${item.seed}", name) for name in names}
    for path in STUDY["stages"][stage]["deps"]:
        assert path.startswith("cprd_pipeline/") or any(out == path or out.startswith(f"{path}/") for out in outputs), path


def test_the_graph_trains_what_the_settings_name() -> None:
    """Every arm, every seed, and where the settings look for them."""
    train = STUDY["stages"]["train"]
    assert train["matrix"] == {"arm": list(SETTINGS.arms), "seed": "${seeds}"}
    assert STUDY["vars"] == ["study.yaml:seeds"]
    assert f"{SETTINGS.folder}/students/${{item.arm}}-${{item.seed}}" in train["outs"]
    assert f"{SETTINGS.folder}/students" in STUDY["stages"]["study"]["deps"]
    assert f"{SETTINGS.folder}/evaluation" in STUDY["stages"]["study"]["outs"]
    own = {str(path) for path in (SETTINGS.report, SETTINGS.markdown, SETTINGS.page)}
    assert own <= paths_of(STUDY["stages"]["study"]["outs"])
    assert str(SETTINGS.random_pairs) in STUDY["stages"]["study"]["deps"]


def test_a_changed_arm_trains_its_own_students_alone() -> None:
    """What a training's settings are made from is tracked key by key; the settings that all share as a whole file."""
    params = {next(iter(entry)): entry[next(iter(entry))] for entry in STUDY["stages"]["train"]["params"]}
    assert params[str(SETTINGS.training)] is None
    assert params["stages/study/study.yaml"] == ["training", "shared", "arms.${item.arm}", "folder"]
    last = {next(iter(entry)) for entry in STUDY["stages"]["study"]["params"]}
    assert last == {"stages/study/study.yaml", str(SETTINGS.evaluation)}


def test_the_settings_file_shows_every_knob() -> None:
    """A user finds all settings of the study in its file."""
    shown = yaml.safe_load((FOLDER / "study.yaml").read_text())
    assert knobs(StudySettings) == set(shown)
