"""Arms as `--set` would make them, and mistakes in one line."""

from pathlib import Path

import pytest
import yaml

from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.errors import SettingsError
from cprd_pipeline.evaluation.study.settings import StudySettings
from cprd_pipeline.settings import load_settings

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def shipped():
    """The study of the demo world."""
    return load_settings(StudySettings, ROOT / "stages/study/study.yaml")


def training(settings, arm, seed):
    """What `study --train` would train."""
    return load_settings(DistillSettings, ROOT / settings.training, settings.training_overrides(arm, seed))


def test_an_arm_is_the_shared_settings_and_what_it_changes(shipped):
    """One key of a group leaves the group's other keys alone; seed, output and report are the student's own."""
    changed = {"set": {"objective": "kl", "kl.teacher_temperature": 2.5}, "label": "KL"}
    settings = StudySettings.model_validate(
        shipped.as_json() | {"arms": {"kl": changed, "itc": shipped.arms["itc"].as_json()}, "claims": []}
    )
    base = load_settings(DistillSettings, ROOT / "stages/distill.yaml")
    found = training(settings, "kl", 3)
    own = {"seed": 3, "objective": "kl", "output": Path("data/study/students/kl-3"), "report": Path("data/study/reports/kl-3.json")}
    kl = base.kl.model_copy(update={"teacher_temperature": 2.5})
    assert found == base.model_copy(update=own | settings.shared | {"kl": kl})


def test_all_arms_share_data_initial_weights_and_steps(shipped):
    """What differs between two arms is the objective, what belongs to it, and regularisation as val chose it."""
    allowed = {"objective", "rankings", "shuffle_teacher", "cosine_steps", "output", "report"}
    allowed |= {"distillation_weight", "cprd", "kl", "margin_mse", "listmle", "weight_decay", "label_smoothing"}
    of_unpaired = {"cprd_unpaired": {"unpaired", "learning_rate", "augmentation"}}
    others = {arm: training(shipped, arm, 1).as_json() for arm in shipped.arms}
    first = others.pop("itc")
    assert set(of_unpaired) < set(others)
    for arm, other in others.items():
        assert {name for name in first if first[name] != other[name]} <= allowed | of_unpaired.get(arm, set())


@pytest.mark.parametrize(("control", "change"), [("cprd_shuffled", "shuffle_teacher"), ("cprd_random", "rankings")])
def test_a_control_differs_from_its_arm_in_one_setting(shipped, control, change):
    """So that a difference between the two has one cause."""
    arm, other = (training(shipped, name, 1).as_json() for name in ("cprd", control))
    assert {name for name in arm if arm[name] != other[name]} == {change, "output", "report"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "nobody"}, "'nobody' is none of the arms cprd, cprd_random"),
        ({"claims": [{"text": "x", "better": "cprd", "worse": "none"}]}, "'none' is none of the arms"),
        ({"seeds": [1, 2, 1]}, "seeds 1, 2, 1: one stands there twice"),
        ({"seeds": [1]}, "seeds is "),
        ({"arms": {"itc": {"label": "x"}, "kl": {"label": "x"}}, "claims": []}, "labels x, x: one stands there twice"),
        ({"arms": {"a-b": {"label": "x"}, "c": {"label": "y"}}}, "string_pattern|pattern"),
    ],
)
def test_what_does_not_fit_is_said(shipped, tmp_path, changes, message):
    """One line that names it."""
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(shipped.as_json() | changes))
    with pytest.raises(SettingsError, match=message):
        load_settings(StudySettings, tmp_path / "study.yaml")


def test_an_unknown_arm_is_said(shipped):
    """With those that there are."""
    with pytest.raises(SettingsError, match=r"--train ctc: no such arm; expected one of itc, kl, margin_mse"):
        shipped.training_overrides("ctc", 0)
