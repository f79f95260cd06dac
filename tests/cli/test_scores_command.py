"""`cprd-pipeline scores`: what a user types, sees and is told."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cprd_pipeline.cli import app
from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.scores import ScoreStore
from tests.store.score_pairs import append, data_files, flip_a_bit, known

TEACHERS = ("0123456789abcdef0123456789abcdef", "0123456789ab77777777777777777777", "fedcba98765432100123456789abcdef")


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    """Three teachers, two of whose fingerprints begin alike."""
    store = ScoreStore(str(tmp_path / "store"))
    for number in range(3):
        append(store, {(number, caption): float(caption) for caption in range(20)}, TEACHERS[0])
    append(store, {(0, 0): 5.0}, TEACHERS[0])
    append(store, {(0, 1): 1.0}, TEACHERS[1], "i2t")
    append(store, {(0, 1): 1.0}, TEACHERS[2], "t2i")
    return store


def scores(*arguments: object) -> str:
    """What a command prints; an error is raised as it is."""
    done = CliRunner().invoke(app, ["scores", *map(str, arguments)], catch_exceptions=False)
    return done.stdout


def results(*arguments: object) -> dict:
    """What a command's JSON says."""
    return json.loads(scores(*arguments, "--json"))


def test_the_list_shows_each_teacher(store: ScoreStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 80 columns no line is broken; fingerprints are as long as it takes to tell them apart."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = [" ".join(line.split()) for line in scores("list", "--store", store.uri).splitlines()]
    size = sum(file.stat().st_size for file in data_files(store, TEACHERS[0]))
    assert "0123456789abc 61 scores (both), 1 of them doubled" in lines
    assert f"4 files, {size / 1000:.1f} kB, {size / 61:.2f} bytes a score" in lines
    assert "0123456789ab7 1 score (i2t)" in lines
    assert "fedcba9876543 1 score (t2i)" in lines
    teachers = results("list", "--store", store.uri)["results"]["teachers"]
    assert [(one["teacher"], one["rows"], one["doubled"], one["files"]) for one in teachers] == [
        (TEACHERS[1], 1, 0, 1),
        (TEACHERS[0], 61, 1, 4),
        (TEACHERS[2], 1, 0, 1),
    ]


def test_the_store_of_the_cache_is_the_one_that_is_meant(tmp_path: Path, store: ScoreStore) -> None:
    """Without --store; CPRD_CACHE is the test's own folder."""
    with pytest.raises(StoreError, match=r"cache/scores: there is no score store; name another one with --store"):
        scores("list")
    shutil.copytree(store.uri, tmp_path / "cache" / "scores")
    assert results("verify")["results"]["rows"] == 63


def test_verify_names_every_damaged_file(store: ScoreStore) -> None:
    """On stderr, and the first of them in the error; the user may give them up."""
    assert "verified" in scores("verify", "--store", store.uri)
    first, second, *_ = data_files(store, TEACHERS[0])
    flip_a_bit(first, 60)
    second.unlink()
    with pytest.raises(
        StoreError, match=rf"2 of 6 files damaged \(first: teacher=.*{first.name}: its bytes changed .*--forget-damaged"
    ):
        scores("verify", "--store", store.uri)
    done = CliRunner().invoke(app, ["scores", "verify", "--store", store.uri, "--forget-damaged"], catch_exceptions=False)
    assert f"{first.name}: its bytes changed after it was written (" in done.stderr
    assert f"{second.name}: the file is gone (" in done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert [line.split(",")[0] for line in lines if line.startswith(("verified", "forgotten"))] == [
        "verified 4 files",
        "forgotten 2 files",
    ]
    again = results("verify", "--store", store.uri)["results"]
    assert (again["files"], again["damaged"], again["stray"]) == (4, [], 1)


def test_compact_says_what_it_did_and_then_that_nothing_is_left(store: ScoreStore) -> None:
    """One teacher by the beginning of its fingerprint, then all."""
    assert "0123456789abc" in scores("compact", "--store", store.uri, "--teacher", "0123456789abc")
    assert [len(data_files(store, teacher)) for teacher in TEACHERS] == [1, 1, 1]
    report = results("compact", "--store", store.uri)
    assert [one["teacher"] for one in report["results"]["compacted"]] == [TEACHERS[1], TEACHERS[2]]
    assert "up to date, nothing done" in scores("compact", "--store", store.uri)


@pytest.mark.parametrize(("prefix", "found"), [("0123", 2), ("9", 0)])
def test_a_teacher_must_be_named_exactly_enough(store: ScoreStore, prefix: str, found: int) -> None:
    """The candidates are named, shortened."""
    with pytest.raises(StoreError, match=rf"--teacher {prefix}: {found} teachers of .* begin so; expected one of 0123456789ab7"):
        scores("compact", "--store", store.uri, "--teacher", prefix)


def test_a_fingerprint_that_begins_another_one_can_be_named(store: ScoreStore) -> None:
    """The whole of it means itself."""
    append(store, {(0, 1): 1.0}, TEACHERS[2][:8])
    assert results("compact", "--store", store.uri, "--teacher", TEACHERS[2][:8])["results"]["compacted"][0]["rows"] == 1


def test_scores_move_to_another_store(store: ScoreStore, tmp_path: Path) -> None:
    """Export there, import here; conflicts are told."""
    file, other = tmp_path / "scores.parquet", ScoreStore(str(tmp_path / "other"))
    assert "60 scores of 1 teacher" in scores("export", file, "--store", store.uri, "--teacher", "0123456789abc")
    append(other, {(0, 3): 1.0}, TEACHERS[0])
    told = [" ".join(line.split()) for line in scores("import", file, "--store", other.uri).splitlines()]
    assert told[2:] == ["new 59 scores", "already there 0", "conflicting 1 (the lower score counts: the file's 0 times)"]
    assert known(other, [0, 1, 2], list(range(20)), TEACHERS[0]) == known(store, [0, 1, 2], list(range(20)), TEACHERS[0]) | {
        (0, 3): 1.0
    }
    assert results("import", file, "--store", other.uri)["up_to_date"]


def test_a_mistake_is_one_red_line_and_exit_code_2(tmp_path: Path) -> None:
    """As for every other command; no traceback, nothing on stdout, nothing made."""
    done = subprocess.run(
        [sys.executable, "-m", "cprd_pipeline", "scores", "import", "none.parquet", "--store", "store"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: none.parquet: there is no such file; name a file that `cprd-pipeline scores export` wrote\n"
    assert list(tmp_path.iterdir()) == []


def test_every_command_has_help() -> None:
    """Each with its own first line."""
    shown = " ".join(scores("--help").split())
    for command in ("list", "verify", "compact", "export", "import"):
        assert f"{command} " in shown
        assert "--store" in scores(command, "--help")
