"""The command `export` at the door."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.models.scene_student import build_scene_student


def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "cprd_pipeline", "export", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """The demo's student, untrained."""
    DualEncoder(*build_scene_student(0), torch.device("cpu"), torch.float32).save(tmp_path / "student")
    return tmp_path / "student"


def test_the_table_says_what_was_written_and_checked(student: Path, tmp_path: Path) -> None:
    """Inputs by name and shape, sizes, how far the check was off; nothing of the exporter's on stderr."""
    done = call("student", "--onnx", "onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for name, inputs in (
        ("image", "pixel_values [batch, 3, 48, 48]"),
        ("text", "input_ids [batch, length], attention_mask [batch, length]"),
    ):
        size = (tmp_path / "onnx" / f"{name}_tower.onnx").stat().st_size
        assert f"{name} tower {name}_tower.onnx, {size / 1e6:.1f} MB: {inputs}" in lines
    assert "embeddings 64 wide, float32, of length one" in lines
    assert [line for line in lines if line.startswith("text checked batches of 1, 3, 5, up to")]
    again = call("student", "--onnx", "onnx", cwd=tmp_path)
    assert again.returncode == 2
    assert "--onnx onnx: is there already; expected a new or an empty folder" in again.stderr


def test_json_is_the_whole_report(student: Path, tmp_path: Path) -> None:
    """As of every other command, with what lies in the folder; the version of the operators is the user's."""
    done = call("student", "--onnx", "onnx", "--opset", "20", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["settings"] == {"student": "student", "onnx": "onnx", "opset": 20}
    told = json.loads((tmp_path / "onnx" / "export.json").read_text())
    assert report["results"].items() >= told.items()
    assert told["opset"] == 20


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """No folder for the files, and no student."""
    for arguments, message in (
        (("student",), "no --onnx DIR; expected where the ONNX files shall be written"),
        (
            ("./student", "--onnx", "onnx"),
            f"./student: there is no such folder in {tmp_path}; expected a model folder or a hub name",
        ),
    ):
        done = call(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stdout == ""
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
