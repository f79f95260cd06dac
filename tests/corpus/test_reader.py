"""The corpus folder as arrays: ids, digests and positives are those of the files, and what does not fit is named."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cprd_pipeline.corpus.reader import Corpus, Items, _items, column_digests, look_up_column, look_up_ids
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.schemas import DIGEST
from tests.corpus.counted_hashes import count_hashes
from tests.tiny_encoders import write_corpus


def small_corpus(folder: Path, captions: list[str], positives: list[tuple[str, str]]) -> Path:
    """Two images in two splits, and captions."""
    images = [("i1", b"one", "train"), ("i0", b"zero", "test")]
    return write_corpus(folder, images, [(name, f"text of {name}", "train") for name in captions], positives)


def test_every_column_is_read_in_file_order(tmp_path: Path) -> None:
    """Ids, digests, splits and texts by row, and positives as rows."""
    corpus = Corpus(small_corpus(tmp_path / "c", ["b", "ä", "a"], [("i1", "a"), ("i0", "ä"), ("i1", "b")]))
    assert corpus.images.ids == ["i1", "i0"]
    assert corpus.captions.ids == corpus.captions.arrow_ids.to_pylist() == ["b", "ä", "a"]
    assert corpus.captions.row_of == {"b": 0, "ä": 1, "a": 2}
    assert corpus.texts == ["text of b", "text of ä", "text of a"]
    assert [row.tobytes() for row in corpus.images.digests] == [bytes_digest(b"one"), bytes_digest(b"zero")]
    assert corpus.images.splits.tolist() == ["train", "test"]
    assert corpus.positives.tolist() == [[0, 2], [1, 1], [0, 0]]
    assert corpus.split("train").positives.tolist() == [[0, 2], [0, 0]]


def test_one_original_makes_no_strings_of_all(tmp_path: Path) -> None:
    """Python's strings of a side take gigabytes where it is large."""
    corpus = Corpus(small_corpus(tmp_path / "c", ["a"], [("i1", "a")]))
    assert [corpus.original(row).image_id for row in (1, 0)] == ["i0", "i1"]
    assert "ids" not in vars(corpus.images)


@pytest.mark.parametrize(
    ("captions", "positives", "message"),
    [
        (["a", "b", "a"], [], "caption_id occurs twice in a corpus table; expected unique ids"),
        (["a"], [("i1", "a"), ("i1", "nobody")], r"positives\.parquet, caption_id: 'nobody' is not in the corpus"),
        (["a"], [("i9", "a")], r"positives\.parquet, image_id: 'i9' is not in the corpus"),
    ],
)
def test_tables_that_contradict_each_other_are_refused(
    tmp_path: Path, captions: list[str], positives: list[tuple[str, str]], message: str
) -> None:
    """In one line that names the file and the id."""
    with pytest.raises(CorpusError, match=message):
        Corpus(small_corpus(tmp_path / "c", captions, positives))


def test_ids_are_looked_up_one_by_one_or_as_a_column() -> None:
    """Both give the same rows and the same error; a chunked column is a column."""
    items = Items(["c", "a", "b"], np.zeros((3, 16), dtype=np.uint8), np.array(["train"] * 3, dtype=object))
    wanted = ["b", "c", "b"]
    column = pa.chunked_array([wanted[:1], wanted[1:]])
    assert look_up_ids(items, wanted, "here").tolist() == look_up_column(items, column, "here").tolist() == [2, 0, 2]
    for failing in (lambda: look_up_ids(items, ["a", "x"], "here"), lambda: look_up_column(items, pa.array(["a", "x"]), "here")):
        with pytest.raises(CorpusError, match="here: 'x' is not in the corpus; expected ids of this corpus"):
            failing()


def test_ids_may_pass_two_gibibytes_and_come_in_chunks(tmp_path: Path) -> None:
    """Their offsets are of 64 bits, in whatever size they came; the files keep those of 32."""
    corpus = Corpus(small_corpus(tmp_path / "c", ["b", "a"], [("i1", "a")]))
    assert corpus.images.arrow_ids.type == corpus.captions.arrow_ids.type == pa.large_string()
    digests, splits = np.zeros((2, 16), dtype=np.uint8), np.array(["train"] * 2, dtype=object)
    for ids in (["c", "a"], pa.array(["c", "a"]), pa.array(["c", "a"], pa.large_string())):
        assert Items(ids, digests, splits).arrow_ids.equals(pa.array(["c", "a"], pa.large_string()))
    rows = {"caption_id": ["c", "a", "b"], "split": ["val", "train", "val"]}
    chunks = [
        pa.table({**rows, "digest": pa.array([bytes([row] * 16) for row in range(3)], DIGEST)}).slice(row, 1) for row in range(3)
    ]
    items = _items(pa.concat_tables(chunks), "caption_id")
    assert (items.ids, items.splits.tolist()) == (rows["caption_id"], rows["split"])
    assert items.digests.tolist() == [[row] * 16 for row in range(3)]


def test_the_lookup_of_a_side_is_one_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reading the corpus hashed is hashed no more."""
    counts = count_hashes(monkeypatch)
    names = [f"c{row}" for row in range(50)]
    corpus = Corpus(small_corpus(tmp_path / "c", names, [("i1", "c7")]))
    before = sum(counts)
    assert look_up_column(corpus.captions, pa.array(["c9"]), "here").tolist() == [9]
    assert look_up_column(corpus.captions, pa.array(["c9", "c1"]), "here").tolist() == [9, 1]
    assert sum(counts) - before == 3


def test_digests_of_a_slice_are_its_own() -> None:
    """Bytes that end in zeros included."""
    digests = [bytes([row] * 15 + [0]) for row in range(5)]
    found = column_digests(pa.array(digests, DIGEST).slice(1, 3))
    assert [row.tobytes() for row in found] == digests[1:4]
