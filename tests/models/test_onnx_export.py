"""Students as ONNX files: the vectors of PyTorch from files alone, or no files at all."""

import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, BertConfig, BertModel

from cprd_pipeline.errors import MachineError, MissingDependencyError, ModelError, SettingsError
from cprd_pipeline.models import onnx_check, onnx_export
from cprd_pipeline.models.dual_encoder import DualEncoder, encoder_fingerprint
from cprd_pipeline.models.onnx_check import TOLERANCE, Check, check_tower
from cprd_pipeline.models.onnx_export import DESCRIPTION, export_onnx
from cprd_pipeline.models.onnx_towers import Tower, towers_of, write_tower
from cprd_pipeline.models.scene_student import build_scene_student
from tests.models.tiny_families import FAMILIES, LONGEST

CPU = torch.device("cpu")
CAPTIONS = ["d", "a b c", "x y", "k l m n o p q", "a b c d e f g h i j k l m n o p q r s t u v", "z", "c c"]


def scenes(folder: Path, seed: int = 0) -> Path:
    """The demo's student, untrained, as `distill` saves it."""
    DualEncoder(*build_scene_student(seed), CPU, torch.float32).save(folder)
    return folder


FAMILIES_WITH_SCENES = {"scenes": scenes, **{name: FAMILIES[name] for name in ("clip", "siglip", "bert_towers", "altclip", "blip")}}


def load(folder: Path) -> DualEncoder:
    """The folder's encoder on the CPU."""
    return DualEncoder.load(str(folder), CPU, torch.float32)


def pictures(count: int) -> list[Image.Image]:
    """Noise of several shapes, other than the export's own check."""
    rng = np.random.default_rng(99)
    return [Image.fromarray(rng.integers(0, 256, (50 + 9 * row, 70, 3), dtype=np.uint8)) for row in range(count)]


def run(folder: Path, tower: dict[str, Any], inputs: dict[str, Any]) -> torch.Tensor:
    """A tower's output, by what the description says about it."""
    session = onnxruntime.InferenceSession(folder / tower["file"], providers=["CPUExecutionProvider"])
    return torch.as_tensor(session.run([tower["output"]], {name: np.asarray(inputs[name]) for name in tower["inputs"]})[0])


@pytest.mark.parametrize("family", FAMILIES_WITH_SCENES)
def test_the_files_alone_give_pytorchs_vectors(family: str, tmp_path: Path) -> None:
    """Preprocessed by what lies beside the towers, in batches that neither tracing nor the export's check has seen."""
    student, folder = FAMILIES_WITH_SCENES[family](tmp_path / "student"), tmp_path / "onnx"
    report = export_onnx(str(student), folder, 18)
    told = json.loads((folder / DESCRIPTION).read_text())
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder, backend="pil")
    encoder = load(student)
    with torch.no_grad():
        images, captions = encoder.embed_pictures(pictures(7)), encoder.embed_captions(CAPTIONS)
    seen = run(folder, told["towers"]["image"], processor(images=pictures(7), return_tensors="np"))
    read = run(folder, told["towers"]["text"], tokenizer(CAPTIONS, return_tensors="np", **told["captions"]))
    for found, expected in ((seen, images), (read, captions)):
        assert found.dtype == torch.float32
        assert found.shape == (7, told["embeddings"]["width"])
        torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
        assert (found @ found.T - torch.eye(7)).abs().max() > 1e-3
    # SigLIP reads the full length; a mask, which its tokenizer may make, is no input that could be given.
    full = {"input_ids": ["batch", LONGEST]}
    ragged = {"input_ids": ["batch", "length"], "attention_mask": ["batch", "length"]}
    assert told["towers"]["text"]["inputs"] == (full if family == "siglip" else ragged)
    assert told["student"] == encoder_fingerprint(str(student), torch.float32)
    parameters = {name: float(value.detach()) for name, value in encoder.model.named_parameters() if value.numel() == 1}
    assert told["logit_scale"] == (pytest.approx(math.exp(parameters["logit_scale"])) if family != "blip" else None)
    assert told["logit_bias"] == parameters.get("logit_bias")
    for name in ("image", "text"):
        assert 0 <= told["checks"][name]["largest_difference"] <= TOLERANCE
    assert report.results["files"] == {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {"student", "onnx"}
    for file in folder.glob("*.onnx"):
        onnx.checker.check_model(onnx.load(file), full_check=True)
        assert b"site-packages" not in file.read_bytes()
        assert b"cprd_pipeline" not in file.read_bytes()


def bert(folder: Path) -> Path:
    """A text model with CLIP's tokenizer and image processor beside it."""
    FAMILIES["clip"](folder)
    (folder / "model.safetensors").unlink()
    config = BertConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=80)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bert, "BertModel is not a dual encoder"),
        (FAMILIES["naflex"], "makes patches of pictures of many shapes; expected a student that takes pictures of one size"),
        (lambda folder: folder, "there is no such folder"),
        (lambda folder: f"embeddings:{folder}", "brought embeddings hold the corpus' items and can embed no other"),
    ],
)
def test_what_is_no_student_is_refused(make: Any, message: str, tmp_path: Path) -> None:
    """In one line, and nothing is written."""
    name = str(make(tmp_path / "student"))
    with pytest.raises(ModelError, match=message):
        export_onnx(name, tmp_path / "onnx", 18)
    assert not (tmp_path / "onnx").exists()


def test_only_a_new_or_empty_folder_is_written(tmp_path: Path) -> None:
    """Nothing of the user's is touched, and without a folder there is nothing to do."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for folder in (tmp_path / "full", tmp_path / "full" / "mine.txt"):
        with pytest.raises(SettingsError, match="is there already; expected a new or an empty folder"):
            export_onnx("student", folder, 18)
    with pytest.raises(SettingsError, match=r"no --onnx DIR; expected where the ONNX files shall be written"):
        export_onnx("student", None, 18)
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """In one line, as of every other command."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"file/onnx: .*; mend this and run the same command again"):
        export_onnx(str(scenes(tmp_path / "student")), tmp_path / "file" / "onnx", 18)


def test_a_folder_that_fills_meanwhile_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody else put there while the towers were written stays, and nothing lies beside it."""
    (tmp_path / "onnx").mkdir()

    def checked(tower: Tower, folder: Path, encoder: DualEncoder) -> Check:
        (tmp_path / "onnx" / "theirs.txt").write_text("theirs")
        return Check((1,), (), 0.0)

    monkeypatch.setattr(onnx_export, "check_tower", checked)
    with pytest.raises(SettingsError, match="is there already"):
        export_onnx(str(scenes(tmp_path / "student")), tmp_path / "onnx", 18)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.txt")} == {"onnx/theirs.txt"}
    assert {path.name for path in tmp_path.iterdir()} == {"student", "onnx"}


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_packages_the_extra_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a large model is read."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"{package} cannot be imported .*pip install 'cprd-pipeline\[onnx\]'"):
        export_onnx("student", tmp_path / "onnx", 18)


def test_nothing_is_left_when_the_vectors_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tolerance below rounding: an error, and neither the folder nor the one aside."""
    scenes(tmp_path / "student")
    monkeypatch.setattr(onnx_check, "TOLERANCE", -1.0)
    with pytest.raises(ModelError, match=r"the exported image tower is off by .* on a batch of 1; expected PyTorch's vectors"):
        export_onnx(str(tmp_path / "student"), tmp_path / "onnx", 18)
    assert {path.name for path in tmp_path.iterdir()} == {"student"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tower, Path]:
    """The image tower of a scene student."""
    folder = tmp_path_factory.mktemp("towers")
    tower, _ = towers_of(load(scenes(folder / "student")))
    write_tower(tower, folder, 18)
    return tower, folder


def test_the_same_student_gives_the_same_bytes(
    written: tuple[Tower, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And the exporter's remarks stay off the terminal; its loggers are as before."""
    levels = [logging.getLogger(name).level for name in ("torch.onnx", "onnxscript")]
    write_tower(towers_of(load(written[1] / "student"))[0], tmp_path, 18)
    assert (tmp_path / "image_tower.onnx").read_bytes() == (written[1] / "image_tower.onnx").read_bytes()
    assert capfd.readouterr() == ("", "")
    assert [logging.getLogger(name).level for name in ("torch.onnx", "onnxscript")] == levels


@pytest.mark.parametrize("opset", [21, 23])
def test_the_version_is_the_one_that_was_asked_for(written: tuple[Tower, Path], tmp_path: Path, opset: int) -> None:
    """Newer ones too, whose operators the exporter converts or writes in another way."""
    tower, folder = written
    write_tower(tower, tmp_path, opset)
    assert [one.version for one in onnx.load(tmp_path / tower.file).opset_import if one.domain == ""] == [opset]
    assert check_tower(tower, tmp_path, load(folder / "student")).largest_difference <= TOLERANCE


@pytest.mark.parametrize(("opset", "written_instead"), [(17, 18), (99, 18)])
def test_a_version_that_the_exporter_does_not_write_is_refused(
    written: tuple[Tower, Path], tmp_path: Path, opset: int, written_instead: int
) -> None:
    """It would only log that it wrote another one."""
    with pytest.raises(SettingsError, match=f"--opset {opset}: PyTorch wrote {written_instead} instead"):
        write_tower(written[0], tmp_path, opset)


def test_the_check_finds_other_weights(written: tuple[Tower, Path], tmp_path: Path) -> None:
    """Those of another seed, and a single one that is not a number; the very student passes (the control)."""
    tower, folder = written
    assert check_tower(tower, folder, load(folder / "student")).batch_sizes == (1, 3, 5)
    other = load(scenes(tmp_path / "other", seed=1))
    with pytest.raises(ModelError, match="the exported image tower is off by"):
        check_tower(tower, folder, other)
    spoiled = load(folder / "student")
    with torch.no_grad():
        spoiled.model.visual_projection.bias[0] = torch.nan
    with pytest.raises(ModelError, match="the exported image tower is off by nan"):
        check_tower(tower, folder, spoiled)


def test_the_check_finds_a_batch_that_is_fixed(tmp_path: Path) -> None:
    """The exporter writes the traced size in silence when an axis is not free."""
    encoder = load(scenes(tmp_path / "student"))
    tower, _ = towers_of(encoder)
    fixed = Tower(tower.name, tower.module, tower.inputs, {"pixel_values": {}})
    write_tower(fixed, tmp_path, 18)
    with pytest.raises(ModelError, match=r"onnxruntime cannot run the exported image tower .*try another --opset"):
        check_tower(fixed, tmp_path, encoder)


def test_what_is_no_graph_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that looks at its numbers to decide what to compute."""
    encoder = load(scenes(tmp_path / "student"))
    features = encoder.model.get_image_features

    def deciding(pixel_values: torch.Tensor) -> Any:
        return features(pixel_values if float(pixel_values.sum()) > 0 else -pixel_values)

    monkeypatch.setattr(encoder.model, "get_image_features", deciding)
    with pytest.raises(ModelError, match="the image tower cannot be written as ONNX") as caught:
        write_tower(towers_of(encoder)[0], tmp_path, 18)
    assert "\n" not in str(caught.value)
