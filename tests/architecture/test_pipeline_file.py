"""dvc.yaml, stages/ and the code agree with each other."""

import re
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from cprd_pipeline.corpus.settings import PrepareSettings
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings
from cprd_pipeline.evaluation.settings import EvaluateSettings
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.reporting.settings import ReportSettings
from cprd_pipeline.scoring.settings import ScoreSettings
from cprd_pipeline.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
ENTRY = {
    "prepare": ("corpus.prepare", PrepareSettings),
    "train-teacher": ("distillation.teacher_training", TrainTeacherSettings),
    "mine": ("mining.run", MineSettings),
    "score-teacher": ("scoring.run", ScoreSettings),
    "distill": ("distillation.run", DistillSettings),
    "evaluate": ("evaluation.run", EvaluateSettings),
    "report": ("reporting.run", ReportSettings),
}
GRAPH = grimp.build_graph("cprd_pipeline")


def command_of(stage: str) -> str:
    return str(STAGES[stage]["cmd"].split()[1])


def config_of(stage: str) -> Path:
    words = STAGES[stage]["cmd"].split()
    return Path(words[words.index("--config") + 1]) if "--config" in words else Path(f"stages/{words[1].replace('-', '_')}.yaml")


def paths_of(entries: list[Any]) -> set[str]:
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_what_the_stage_imports(stage: str) -> None:
    """Every module that a stage imports, directly or not, is covered by its deps, and no listed path is idle."""
    entry, _ = ENTRY[command_of(stage)]
    modules = {entry, *(m.removeprefix("cprd_pipeline.") for m in GRAPH.find_upstream_modules(f"cprd_pipeline.{entry}"))}
    files = {f"cprd_pipeline/{m.replace('.', '/')}" for m in modules if m not in ("cprd_pipeline", "")}
    listed = [path for path in STAGES[stage]["deps"] if path.startswith("cprd_pipeline/")]
    covers = {path: {f for f in files if f == path.removesuffix(".py") or f.startswith(f"{path}/")} for path in listed}
    uncovered = (
        files - {Path(f"cprd_pipeline/{r}").as_posix() for r in ("corpus", "store", "models")} - set().union(*covers.values())
    )
    assert not uncovered
    assert not [path for path, covered in covers.items() if not covered]


@pytest.mark.parametrize("stage", STAGES)
def test_the_stage_file_is_the_parameter_of_its_stage(stage: str) -> None:
    """The whole file is tracked, so that no changed knob is invisible to DVC."""
    (parameter,) = STAGES[stage]["params"]
    assert parameter == {str(config_of(stage)): None}


def paths_in(settings: Any) -> set[str]:
    """Every value of a settings file that looks like a path of the data folder."""
    if isinstance(settings, dict):
        return set().union(*map(paths_in, settings.values()))
    if isinstance(settings, list):
        return set().union(set(), *map(paths_in, settings))
    return {settings} if isinstance(settings, str) and settings.startswith("data/") else set()


@pytest.mark.parametrize("stage", STAGES)
def test_paths_in_the_stage_file_are_what_dvc_tracks(stage: str) -> None:
    """A path that a stage reads or writes is one of its deps or outs, or lies inside one."""
    settings = yaml.safe_load((ROOT / config_of(stage)).read_text())
    tracked = paths_of(STAGES[stage]["deps"]) | paths_of(STAGES[stage]["outs"]) | paths_of(STAGES[stage].get("metrics", []))
    strays = {path for path in paths_in(settings) if not any(path == t or path.startswith(f"{t}/") for t in tracked)}
    assert not strays - {"data/scores"}  # the score store is a cache, found by content


def stage_files() -> list[Path]:
    folders = (ROOT / "stages", ROOT / "stages" / "smoke", ROOT / "stages" / "coco")
    return [path for folder in folders for path in sorted(folder.glob("*.yaml")) if path.name != "dvc.yaml"]


def model_of(path: Path) -> type[Settings]:
    name = path.stem
    if name.startswith(("distill", "base_student")):
        return DistillSettings
    return next(model for command, (_, model) in ENTRY.items() if name.startswith(command.replace("-", "_")))


@pytest.mark.parametrize("path", stage_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_stage_files_are_valid(path: Path) -> None:
    """Each loads with its own model, and says where its report goes."""
    assert load_settings(model_of(path), path).as_json()["report"].startswith("data/reports/")


def knobs(model: Any, prefix: str = "") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            found |= knobs(inner, f"{prefix}{name}.")
        else:
            found.add(f"{prefix}{name}")
    return found


def keys(values: Any, prefix: str = "") -> set[str]:
    found = set()
    for name, value in values.items():
        found |= keys(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"}
    return found


@pytest.mark.parametrize("name", ["prepare", "train_teacher", "mine", "score_teacher", "distill", "evaluate", "report"])
def test_the_main_stage_file_shows_every_knob(name: str) -> None:
    """A user finds all settings of a stage in its file; optional groups and maps may stand as one key."""
    path = ROOT / "stages" / f"{name}.yaml"
    shown = keys(yaml.safe_load(path.read_text()))
    missing = {knob for knob in knobs(model_of(path)) if not any(s == knob or s.startswith(f"{knob}.") for s in shown)}
    assert not {knob for knob in missing if not re.search(rf"^\s*#.*\b{knob.split('.')[-1]}:", path.read_text(), re.MULTILINE)}
