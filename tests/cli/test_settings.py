"""`--set` into a group that the file leaves null, and what is said about values."""

from pathlib import Path

import pytest

from cprd_pipeline.corpus.settings import PrepareSettings
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.errors import SettingsError
from cprd_pipeline.settings import load_settings


def test_a_group_that_is_null_in_the_file_can_be_set(tmp_path: Path) -> None:
    """It begins with its defaults; a group that is not in the file does too."""
    (tmp_path / "prepare.yaml").write_text("source: csv\nfiles: null\n")
    overrides = ["files.paths=a.csv", "holdout.seed=3"]
    settings = load_settings(PrepareSettings, tmp_path / "prepare.yaml", overrides)
    assert settings.files is not None
    assert settings.holdout.seed == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rankings=data/rankings/1", r"rankings is 'data/rankings/1'; expected a list: \[value, \.\.\.\]"),
        ("student={vision: X}", r"setting student\.text is missing"),
        ("betas=[0.9, 1, 1]", r"betas is \[0\.9, 1, 1\]; expected fewer entries"),
        ("cprd=1", r"cprd is 1; expected a group of settings"),
        ("seed=null", r"seed is null; expected a valid integer$"),
        ("captions_per_image=0", r"captions_per_image is 0; expected greater than 0"),
        ("cprd.weights=hrad", r"cprd\.weights is 'hrad'; expected .*'soft'"),
    ],
)
def test_a_wrong_value_is_blamed_on_who_gave_it(tmp_path: Path, override: str, message: str) -> None:
    """The override where there is one, otherwise the file; in YAML's words, not in Python's."""
    key, _, value = override.partition("=")
    (tmp_path / "given.yaml").write_text("rankings: [r]\n")
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings(DistillSettings, tmp_path / "given.yaml", ["steps=100", override])
    assert str(caught.value).startswith(f"--set {override}: ")
    group, _, name = key.partition(".")
    (tmp_path / "file.yaml").write_text(f"rankings: [r]\n{group}: {{{name}: {value}}}\n" if name else f"{key}: {value}\n")
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings(DistillSettings, tmp_path / "file.yaml", ["steps=100"])
    assert str(caught.value).startswith(f"{tmp_path / 'file.yaml'}: ")


def test_a_stage_that_an_example_does_not_have_is_not_blamed_on_the_folder(tmp_path: Path) -> None:
    """In a project the file is missing; elsewhere the project is."""
    with pytest.raises(SettingsError, match=r"no such settings file; run inside a project folder"):
        load_settings(DistillSettings, tmp_path / "stages" / "distill.yaml")
    (tmp_path / "stages").mkdir()
    with pytest.raises(SettingsError, match=r"no such settings file; name another with --config, or copy it from a demo project"):
        load_settings(DistillSettings, tmp_path / "stages" / "distill.yaml")
