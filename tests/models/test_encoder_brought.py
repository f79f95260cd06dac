"""Embeddings that the user brings: read as they are, checked before a similarity is made of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.dual_encoder import encoder_fingerprint, load_encoder
from cprd_pipeline.models.embeddings import CorpusEmbeddings, embed_corpus
from cprd_pipeline.models.encoder_brought import read_brought
from cprd_pipeline.models.students import initial_student, student_identity
from cprd_pipeline.store.folder import cache_folder
from tests.tiny_encoders import random_image, simple_corpus, write_corpus

CPU = torch.device("cpu")
WIDTH = 5
Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """6 pictures with two captions each."""
    return Corpus(simple_corpus(tmp_path_factory.mktemp("corpus") / "corpus", 6))


def vectors_of(count: int, seed: int) -> Array:
    """Vectors of any length."""
    return np.random.default_rng(seed).standard_normal((count, WIDTH)) * 3


def write_arrays(folder: Path, side: str, ids: list[str], vectors: Array) -> None:
    """One side as .npy and ids."""
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{side}.npy", vectors)
    (folder / f"{side}.ids.txt").write_text("".join(f"{item}\n" for item in ids), encoding="utf-8")


def write_table(folder: Path, side: str, column: str, keys: list[Any], vectors: Any) -> None:
    """One side as Parquet."""
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({column: keys, "vector": vectors}), folder / f"{side}.parquet")


def as_arrays(folder: Path, corpus: Corpus, images: Array, captions: Array) -> Path:
    """Both sides in reverse order of the corpus, so that an order taken for granted shows."""
    write_arrays(folder, "images", corpus.images.ids[::-1], images[::-1])
    write_arrays(folder, "captions", corpus.captions.ids[::-1], captions[::-1])
    return folder


def as_tables(folder: Path, corpus: Corpus, images: Array, captions: Array) -> Path:
    """Images by id as lists, captions by digest as lists of one size, in reverse order."""
    write_table(folder, "images", "id", corpus.images.ids[::-1], list(images[::-1]))
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(captions[::-1].astype(np.float32).ravel()), WIDTH)
    write_table(folder, "captions", "digest", [digest.tobytes() for digest in corpus.captions.digests[::-1]], fixed)
    return folder


FORMS: dict[str, Callable[[Path, Corpus, Array, Array], Path]] = {"arrays": as_arrays, "tables": as_tables}


@pytest.fixture
def folder(tmp_path: Path, corpus: Corpus) -> Path:
    """A right folder of arrays."""
    return as_arrays(tmp_path / "mine", corpus, vectors_of(6, 0), vectors_of(12, 1))


def embed(folder: Path, corpus: Corpus, images: Any = None, captions: Any = None) -> CorpusEmbeddings:
    """Rows of the corpus, or all of them."""
    images = np.arange(len(corpus.images)) if images is None else np.asarray(images)
    captions = np.arange(len(corpus.captions)) if captions is None else np.asarray(captions)
    options: dict[str, Any] = {"device": CPU, "dtype": torch.float32, "batch_size": 8, "workers": 0}
    return embed_corpus(f"embeddings:{folder}", corpus, images, captions, **options)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_vectors_reach_their_items(tmp_path: Path, corpus: Corpus, form: str, dtype: Any) -> None:
    """Any rows in any order get the vector of their id or digest, at length one; nothing is cached."""
    images, captions = vectors_of(6, 0).astype(dtype), vectors_of(12, 1).astype(dtype)
    found = embed(FORMS[form](tmp_path / "mine", corpus, images, captions), corpus, [4, 0, 4], [11, 2])
    for vectors, expected in ((found.images, images[[4, 0, 4]]), (found.captions, captions[[11, 2]])):
        exact = expected.astype(np.float64) / np.linalg.norm(expected.astype(np.float64), axis=1, keepdims=True)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, exact, atol=1e-7)
    assert not (cache_folder() / "embeddings").exists()


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_order_of_rows_gives_the_same(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, data: st.DataObject) -> None:
    """Shuffled files give the same bytes."""
    folder = tmp_path_factory.mktemp("mine")
    captions = vectors_of(12, 1)
    order = np.asarray(data.draw(st.permutations(range(12))))
    write_arrays(folder, "images", corpus.images.ids, vectors_of(6, 0))
    keys = [corpus.captions.digests[row].tobytes() for row in order]
    write_table(folder, "captions", "digest", keys, list(captions[order]))
    found = embed(folder, corpus).captions
    exact = captions / np.linalg.norm(captions, axis=1, keepdims=True)
    assert np.array_equal(found, exact.astype(np.float32))


def test_a_digest_serves_all_items_of_its_content(tmp_path: Path) -> None:
    """Two ids of one picture share the one vector of its digest."""
    contents = [("a", random_image(1), "train"), ("b", random_image(2), "train"), ("c", random_image(1), "train")]
    corpus = Corpus(write_corpus(tmp_path / "corpus", contents, [("x", "a b", "train")], []))
    vectors = vectors_of(2, 0)
    write_table(tmp_path, "images", "digest", [corpus.images.digests[row].tobytes() for row in (1, 2)], list(vectors))
    write_arrays(tmp_path, "captions", ["x"], vectors[:1])
    found = embed(tmp_path, corpus).images
    assert np.array_equal(found[0], found[2])
    np.testing.assert_allclose(found[1], vectors[0] / np.linalg.norm(vectors[0]), atol=1e-7)


def test_what_is_not_asked_for_may_be_lacking(tmp_path: Path, corpus: Corpus) -> None:
    """Vectors of one split are enough for a run over that split."""
    write_arrays(tmp_path, "images", corpus.images.ids[:3], vectors_of(3, 0))
    write_arrays(tmp_path, "captions", corpus.captions.ids[:6], vectors_of(6, 1))
    assert embed(tmp_path, corpus, [0, 1, 2], [0, 5]).images.shape == (3, WIDTH)
    with pytest.raises(ModelError, match=r"images\.npy: no vector for 3 of 6 items \(first: 'image-003'\)"):
        embed(tmp_path, corpus)


def test_ids_are_lines_of_any_characters(tmp_path: Path) -> None:
    """Ids with spaces, line separators of Unicode and a carriage return before the line's end are whole."""
    names = ["a b", "c\u2028d", "e\x0cf"]
    contents = [(name, random_image(row), "train") for row, name in enumerate(names)]
    corpus = Corpus(write_corpus(tmp_path / "corpus", contents, [("x", "a b", "train")], []))
    write_arrays(tmp_path, "images", names, vectors_of(3, 0))
    (tmp_path / "images.ids.txt").write_bytes("\r\n".join(names).encode())
    write_arrays(tmp_path, "captions", ["x"], vectors_of(1, 0))
    assert embed(tmp_path, corpus).images.shape == (3, WIDTH)


@pytest.mark.parametrize("file", ["images.npy", "images.ids.txt", "captions.npy", "captions.ids.txt"])
def test_the_fingerprint_names_the_bytes(folder: Path, tmp_path: Path, file: str) -> None:
    """The same files elsewhere and in any number type are the same encoder; one changed byte is another."""
    known = encoder_fingerprint(f"embeddings:{folder}", torch.float32)
    folder = folder.rename(tmp_path / "elsewhere")
    assert encoder_fingerprint(f"embeddings:{folder}", torch.bfloat16) == known
    content = bytearray((folder / file).read_bytes())
    content[-2] ^= 1
    (folder / file).write_bytes(bytes(content))
    assert encoder_fingerprint(f"embeddings:{folder}", torch.float32) != known


Spoil = Callable[[Path, Corpus], object]


def _set(row: int, value: float) -> Spoil:
    """Put a value all over a row of the images."""

    def spoil(folder: Path, _: Corpus) -> None:
        vectors = np.load(folder / "images.npy")
        vectors[row] = value
        np.save(folder / "images.npy", vectors)

    return spoil


def _table(column: str, keys: Callable[[Corpus], list[Any]], vectors: Any) -> Spoil:
    """Put a table in the place of the images' arrays."""

    def spoil(folder: Path, corpus: Corpus) -> None:
        (folder / "images.npy").unlink()
        write_table(folder, "images", column, keys(corpus), vectors)

    return spoil


def _ids(corpus: Corpus) -> list[str]:
    return corpus.images.ids


def _digests(corpus: Corpus) -> list[bytes]:
    return [digest.tobytes() for digest in corpus.images.digests]


def _archive(path: Path) -> None:
    """An .npz under the name of an .npy."""
    with path.open("wb") as file:
        np.savez(file, a=np.ones((6, WIDTH)))


BAD: dict[str, tuple[Spoil, str]] = {
    "nan": (_set(1, np.nan), r"images\.npy: the vector of 'image-004' is not finite; expected finite vectors"),
    "infinity": (_set(0, np.inf), r"images\.npy: the vector of 'image-005' is not finite"),
    "too large": (_set(0, 1e200), r"images\.npy: the vector of 'image-005' is not finite"),
    "zero": (_set(5, 0.0), r"images\.npy: the vector of 'image-000' is zero"),
    "other width": (
        lambda folder, _: np.save(folder / "captions.npy", np.ones((12, 3))),
        r"captions\.npy: vectors of 3 numbers; expected 5, as in images\.npy",
    ),
    "rows": (
        lambda folder, _: np.save(folder / "images.npy", np.ones((7, WIDTH))),
        r"images\.npy: 7 rows and 6 ids in images\.ids\.txt; expected one id a row",
    ),
    "one dimension": (lambda folder, _: np.save(folder / "images.npy", np.ones(6)), r"images\.npy: float64 of shape \[6\]"),
    "integers": (
        lambda folder, _: np.save(folder / "images.npy", np.ones((6, WIDTH), dtype=np.int8)),
        r"images\.npy: int8 of shape \[6, 5\]; expected floating point",
    ),
    "pickle": (
        lambda folder, _: np.save(folder / "images.npy", np.asarray([{}] * 6, dtype=object)),
        r"images\.npy: cannot be read \(.*Python objects",
    ),
    "cut short": (
        lambda folder, _: (folder / "images.npy").write_bytes((folder / "images.npy").read_bytes()[:-8]),
        r"images\.npy: cannot be read",
    ),
    "archive": (
        lambda folder, _: _archive(folder / "images.npy"),
        r"images\.npy: cannot be read \(an archive of arrays\)",
    ),
    "empty file": (lambda folder, _: (folder / "images.npy").write_bytes(b""), r"images\.npy: cannot be read"),
    "unknown id": (
        lambda folder, corpus: write_arrays(folder, "images", [*corpus.images.ids, "nobody"], vectors_of(7, 0)),
        r"images\.npy: 'nobody' is not in the corpus",
    ),
    "id twice": (
        lambda folder, corpus: write_arrays(folder, "images", [*corpus.images.ids, "image-002"], vectors_of(7, 0)),
        r"images\.npy: 'image-002' occurs twice",
    ),
    "empty line": (
        lambda folder, corpus: write_arrays(folder, "images", [*corpus.images.ids, ""], vectors_of(7, 0)),
        r"images\.npy: '' is not in the corpus",
    ),
    "no ids": (lambda folder, _: (folder / "images.ids.txt").unlink(), r"no images\.ids\.txt in it; expected images\.npy with"),
    "latin": (
        lambda folder, _: (folder / "images.ids.txt").write_bytes("ä".encode("latin-1")),
        r"images\.npy: cannot be read \(.*utf-8",
    ),
    "both forms": (
        lambda folder, corpus: write_table(folder, "images", "id", corpus.images.ids, list(vectors_of(6, 0))),
        r"images\.npy and images\.parquet; expected one of them",
    ),
    "no table": (_table("name", _ids, list(vectors_of(6, 0))), r"columns name, vector; expected vector, and one of id and digest"),
    "scalars": (_table("id", _ids, list(range(6))), r"images\.parquet: vector is of type int64; expected a list"),
    "ragged": (_table("id", _ids, [[1.0] * WIDTH] * 5 + [[1.0]]), r"the vector of 'image-005' lacks numbers or has too many"),
    "null vector": (_table("id", _ids, [[1.0] * WIDTH] * 5 + [None]), r"the vector of 'image-005' lacks numbers"),
    "null vector of one size": (
        _table("id", _ids, pa.array([[1.0] * WIDTH] * 5 + [None], pa.list_(pa.float32(), WIDTH))),
        r"the vector of 'image-005' lacks numbers",
    ),
    "no rows": (_table("id", lambda _: [], pa.array([], pa.list_(pa.float32()))), r"images\.parquet: no rows in it"),
    "null number": (_table("id", _ids, [[1.0] * WIDTH] * 5 + [[None] * WIDTH]), r"lacks numbers"),
    "null id": (
        _table("id", lambda corpus: [*corpus.images.ids[:5], None], [[1.0] * WIDTH] * 6),
        r"images\.parquet: None among its ids; expected strings",
    ),
    "short digest": (
        _table("digest", lambda corpus: [*_digests(corpus)[:5], b"ab"], [[1.0] * WIDTH] * 6),
        r"b'ab' among its digests; expected binary values of 16 bytes",
    ),
    "unknown digest": (
        _table("digest", lambda corpus: [*_digests(corpus), bytes(16)], [[1.0] * WIDTH] * 7),
        r"images\.parquet: '0{32}' is not in the corpus",
    ),
    "digest twice": (
        _table("digest", lambda corpus: [*_digests(corpus), _digests(corpus)[2]], [[1.0] * WIDTH] * 7),
        r"images\.parquet: the digest '[0-9a-f]{32}' occurs twice; expected one vector a digest, which all items of equal content "
        r"share; keep the first row of each digest",
    ),
    "no parquet": (
        lambda folder, _: [(folder / "images.npy").rename(folder / "images.parquet")],
        r"images\.parquet: cannot be read",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_in_one_line(folder: Path, corpus: Corpus, case: str) -> None:
    """Nothing is repaired, shifted or skipped, and each says what to do next."""
    spoil, message = BAD[case]
    spoil(folder, corpus)
    with pytest.raises(ModelError, match=message) as caught:
        embed(folder, corpus)
    assert caught.value.do
    assert "\n" not in str(caught.value)


def test_no_folder_is_said_in_one_line(tmp_path: Path) -> None:
    """The message says what belongs there."""
    with pytest.raises(
        ModelError, match=r"nowhere: no images\.npy in it; expected images\.npy with images\.ids\.txt, or images\.parquet"
    ):
        encoder_fingerprint(f"embeddings:{tmp_path / 'nowhere'}", torch.float32)


def test_they_are_no_model(folder: Path) -> None:
    """They embed no other text and learn nothing."""
    message = "brought embeddings hold the corpus' items and can embed no other; expected a dual encoder"
    with pytest.raises(ModelError, match=message):
        load_encoder(f"embeddings:{folder}", CPU, torch.float32)
    with pytest.raises(ModelError, match=message):
        initial_student(f"embeddings:{folder}", 0, CPU, torch.float32)
    with pytest.raises(ModelError, match=message):
        student_identity(f"embeddings:{folder}")


def test_many_rows_are_read_in_blocks(tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of the blocks, which bounds the memory, changes no bit, and the item of a bad vector in a later one is named."""
    folder = as_arrays(tmp_path / "mine", corpus, vectors_of(6, 0), vectors_of(12, 1))
    rows = np.arange(6), np.arange(12)
    whole = read_brought(folder, corpus.images, rows[0], corpus.captions, rows[1])
    monkeypatch.setattr("cprd_pipeline.models.encoder_brought._BLOCK", 4)
    pieces = read_brought(folder, corpus.images, rows[0], corpus.captions, rows[1])
    assert all(np.array_equal(*pair) for pair in zip(whole, pieces, strict=True))
    _set(0, np.nan)(folder, corpus)
    with pytest.raises(ModelError, match="'image-005' is not finite"):
        embed(folder, corpus)
