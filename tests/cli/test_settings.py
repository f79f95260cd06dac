"""`--set` into a group that the file leaves null."""

from pathlib import Path

from cprd_pipeline.corpus.settings import PrepareSettings
from cprd_pipeline.settings import load_settings


def test_a_group_that_is_null_in_the_file_can_be_set(tmp_path: Path) -> None:
    """It begins with its defaults; a group that is not in the file does too."""
    (tmp_path / "prepare.yaml").write_text("source: csv\nfiles: null\n")
    overrides = ["files.paths=a.csv", "holdout.seed=3"]
    settings = load_settings(PrepareSettings, tmp_path / "prepare.yaml", overrides)
    assert settings.files is not None
    assert settings.holdout.seed == 3
