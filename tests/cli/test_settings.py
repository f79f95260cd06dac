"""`--set` into a group that the file leaves null, and what is said about files, keys and values."""

from pathlib import Path

import pytest

from cprd_pipeline.corpus.settings import PrepareSettings
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.errors import SettingsError
from cprd_pipeline.mining.settings import MineSettings
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


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("K: 10", [], r"mine\.yaml: unknown setting K; did you mean k\?"),
        ("k: 10", ["K=10"], r"^--set K=10: unknown setting K; did you mean k\?"),
        ("filters: {Max_similarity: 0.9}", [], r"unknown setting filters\.Max_similarity; did you mean max_similarity\?"),
        ("filters: {str: 0.9}", [], r"unknown setting filters\.str; known are: "),
    ],
)
def test_an_unknown_key_is_named_as_it_was_written(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    """Capitals and names of Python's types too, which pydantic's marks of alternatives look like."""
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_settings(MineSettings, tmp_path / "mine.yaml", overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "k: 10\n\nk: 20\n",
            r"mine\.yaml: line 3: k occurs twice, first in line 1; expected every key once; remove one of the two",
        ),
        ("index:\n  kind: flat\n  kind: hnsw\n", r"line 3: kind occurs twice, first in line 2"),
        ("merge: [{k: 1, k: 2}]\n", r"line 1: k occurs twice; expected every key once"),
        ("k: 1\non: 1\n", r"line 2: the key 'on' is a boolean in YAML, as yes, no, on and off are; .*write it in quotes: 'on'"),
        ("filters: {1: 2}\n", r"line 1: the key '1' is a number; expected a text; write it in quotes: '1'"),
        ("? [k]\n: 2\n", r"line 1: a key is a list or a mapping; expected a name"),
        ("k: 2026-13-45\n", r"mine\.yaml: not valid YAML; check indentation"),
        ("abc\n", r"mine\.yaml: holds a single value; expected a mapping"),
    ],
)
def test_a_file_that_says_something_else_than_was_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """PyYAML would keep the last of two equal keys, and read some words as booleans."""
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_settings(MineSettings, tmp_path / "mine.yaml")


def test_an_override_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    """As a file; it has no lines to name."""
    (tmp_path / "mine.yaml").write_text("")
    with pytest.raises(SettingsError, match=r"^--set index=\{kind: flat, kind: hnsw\}: kind occurs twice; expected every key once"):
        load_settings(MineSettings, tmp_path / "mine.yaml", ["index={kind: flat, kind: hnsw}"])


def test_merge_keys_work(tmp_path: Path) -> None:
    """A mapping may say anew what `<<` brings, also one that is merged further."""
    (tmp_path / "prepare.yaml").write_text(
        "scenes:\n  splits:\n    train: &train {images: 3, captions_each: 2}\n    val: &val {<<: *train, images: 4}\n"
        "    test: {<<: [*val, *train], captions_each: 5}\n"
    )
    splits = load_settings(PrepareSettings, tmp_path / "prepare.yaml").scenes.splits
    assert {name: (one.images, one.captions_each) for name, one in splits.items()} == {
        "train": (3, 2),
        "val": (4, 2),
        "test": (4, 5),
    }


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """In words, without numbers of errors."""
    with pytest.raises(SettingsError, match=r"Is a directory; expected a YAML file; name it with --config"):
        load_settings(MineSettings, tmp_path)
    (tmp_path / "mine.yaml").write_bytes("k: 10".encode("utf-16"))
    with pytest.raises(SettingsError, match=r"mine\.yaml: not UTF-8 \(byte 0xF[EF]\); expected a YAML file in UTF-8"):
        load_settings(MineSettings, tmp_path / "mine.yaml")


def test_a_name_that_is_none_is_shown_where_it_stands(tmp_path: Path) -> None:
    """Without pydantic's mark for keys."""
    (tmp_path / "prepare.yaml").write_text("source: csv\nfiles: {paths: a}\nholdout: {shares: {a b: 0.1}}\n")
    with pytest.raises(SettingsError, match=r"holdout\.shares\.a b is 'a b'; expected a name of the pattern '\^"):
        load_settings(PrepareSettings, tmp_path / "prepare.yaml")
