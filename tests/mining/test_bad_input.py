"""What a user may get wrong, at the command line: one line that says what was found, exit code 2, nothing on stdout."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cprd_pipeline.corpus.reader import Corpus
from tests.mining.test_second_run import brought
from tests.tiny_encoders import random_image, simple_corpus, write_corpus


def mine(corpus: Path, encoder: str, folder: Path, packages: Path | None = None, **changes: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `cprd-pipeline mine`.

    Args:
        corpus: The corpus.
        encoder: The setting.
        folder: Where to run.
        packages: Folder whose packages are found before those that are installed.
        changes: Other settings.
    """
    (folder / "mine.yaml").write_text(json.dumps({"corpus": str(corpus), "encoder": encoder, "k": 4, **changes}))
    environment = dict(os.environ) | ({"PYTHONPATH": str(packages)} if packages else {})
    command = [sys.executable, "-m", "cprd_pipeline", "mine", "--config", "mine.yaml"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def change(side: str, what: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Spoil the vectors of a side."""

    def spoil(folder: Path) -> None:
        np.save(folder / f"{side}.npy", what(np.load(folder / f"{side}.npy")))

    return spoil


def with_row(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """The third vector all of one value."""
    return lambda vectors: np.where(np.arange(len(vectors))[:, None] == 2, np.float32(value), vectors)


def rename_one(folder: Path) -> None:
    """An id that the corpus has not."""
    path = folder / "captions.ids.txt"
    path.write_text(path.read_text().replace("caption-003", "caption-x"))


VECTORS: dict[str, tuple[Callable[[Path], None], str]] = {
    "NaN": (change("images", with_row(np.nan)), "images.npy: the vector of 'image-002' is not finite"),
    "zero": (change("captions", with_row(0)), "captions.npy: the vector of 'caption-002' is zero"),
    "width": (change("captions", lambda vectors: vectors[:, :5]), "captions.npy: vectors of 5 numbers; expected 6"),
    "rows": (change("images", lambda vectors: vectors[:-1]), "images.npy: 7 rows and 8 ids"),
    "id": (rename_one, "captions.npy: 'caption-x' is not in the corpus"),
}


@pytest.mark.parametrize("case", VECTORS)
def test_embeddings_that_do_not_fit(case: str, tmp_path: Path) -> None:
    """They are named with the file and the item."""
    corpus = simple_corpus(tmp_path / "corpus", 8)
    encoder = brought(tmp_path / "brought", Corpus(corpus))
    spoil, message = VECTORS[case]
    spoil(tmp_path / "brought")
    code, output, errors = mine(corpus, encoder, tmp_path)
    assert (code, output) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 9}, "8 different images and 16 different captions; expected at least the k of 9"),
        ({"split": "val"}, "split 'val' has 0 images and 0 captions"),
        ({"index": {"kind": "ivf_flat", "nlist": 100}}, "ivf_flat with 100 cells, and there are 16 items"),
        ({"index": {"kind": "ivf_pq"}}, "ivf_pq with 1 cells, and there are 16 items; expected at least 256 items"),
    ],
)
def test_settings_that_do_not_fit_the_corpus(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    """Too large a k, an empty split, too many cells."""
    corpus = simple_corpus(tmp_path / "corpus", 8)
    encoder = brought(tmp_path / "brought", Corpus(corpus))
    code, output, errors = mine(corpus, encoder, tmp_path, **changes)
    assert (code, output) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_a_corpus_with_one_image(tmp_path: Path) -> None:
    """Nothing can be a negative of a caption there."""
    captions = [("x", "a b", "train"), ("y", "c d", "train")]
    path = write_corpus(tmp_path / "corpus", [("a", random_image(1), "train")], captions, [("a", "x")])
    code, output, errors = mine(path, brought(tmp_path / "brought", Corpus(path)), tmp_path, k=1)
    assert (code, output) == (2, "")
    assert "1 different images and 2 different captions; expected at least two of each" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("module", "message"),
    [("raise ImportError('no faiss here')", "faiss cannot be imported (no faiss here)"), (None, "faiss is an empty shell")],
)
def test_no_faiss(module: str | None, message: str, tmp_path: Path) -> None:
    """Not there, or only the hollow folder of a removed package: both extras are named."""
    package = tmp_path / "packages" / "faiss"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(module or "")
    corpus = simple_corpus(tmp_path / "corpus", 8)
    code, output, errors = mine(corpus, brought(tmp_path / "brought", Corpus(corpus)), tmp_path, tmp_path / "packages")
    assert (code, output) == (2, "")
    assert message in errors
    assert "cprd-pipeline[cpu]" in errors
    assert "cprd-pipeline[gpu]" in errors
    assert len(errors.splitlines()) == 1
