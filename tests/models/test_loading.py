"""From a model's name to its folder: what is missing, what version control did not bring, what is no model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.encoder_identity import encoder_fingerprint
from cprd_pipeline.models.loading import resolve_model


@pytest.mark.parametrize(
    ("name", "do"),
    [
        ("data/students/base", "train it first: `dvc repro`, or `cprd-pipeline distill` .*--config stages/base_student.yaml"),
        ("data/teacher", "train it first: `dvc repro`, or `cprd-pipeline train-teacher`"),
        ("./elsewhere", "mend the name in the settings"),
    ],
)
def test_who_makes_a_folder_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, do: str) -> None:
    """And where a relative name was looked for, since settings may lie elsewhere."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=f"^{name}: there is no such folder in {tmp_path}; expected a model folder.*; {do}"):
        resolve_model(name)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_in_the_place_of_weights_is_named(tmp_path: Path, file: str) -> None:
    """As a clone without Git LFS has them; the library would say that a header is too large."""
    (tmp_path / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 605247071\n")
    with pytest.raises(ModelError, match=rf"{file}: a Git LFS pointer, not the weights; fetch the file itself with `git lfs pull`"):
        resolve_model(str(tmp_path))


def test_vectors_without_their_prefix_are_no_model(tmp_path: Path) -> None:
    """The message says how to name them; a corpus, whose tables have such names, is not taken for them."""
    np.save(tmp_path / "images.npy", np.ones((2, 3)))
    with pytest.raises(ModelError, match=rf"holds vectors, not a model; expected a dual encoder; write embeddings:{tmp_path} to"):
        encoder_fingerprint(str(tmp_path), torch.float32)
    (tmp_path / "_manifest.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no weights in it; expected model\.safetensors.*; name a folder that save_pretrained"):
        encoder_fingerprint(str(tmp_path), torch.float32)


def test_the_weights_of_a_hub_repository_are_fetched_in_either_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Safetensors of another library beside PyTorch's own file are not the weights: that file is fetched too."""
    asked = []

    def download(_: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
        if "pytorch_model*.bin" in allow_patterns:
            (tmp_path / "pytorch_model.bin").write_bytes(b"")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_model("owner/model") == tmp_path
    assert (tmp_path / "pytorch_model.bin").is_file()
    assert len(asked) == 2
