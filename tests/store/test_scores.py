"""The score store: appended whole, found by content, never silently repaired."""

import multiprocessing
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.fingerprint import DigestArray, bytes_digest, stack_digests
from cprd_pipeline.store.scores import ScoreStore


def digests(values: list[int]) -> DigestArray:
    """Of numbers, the first with trailing zero bytes."""
    return stack_digests(bytes([7]) + bytes(15) if value == 0 else bytes_digest(str(value).encode()) for value in values)


def append(store: ScoreStore, pairs: dict[tuple[int, int], float], teacher: str = "t", direction: str = "both") -> None:
    """Pairs of (image, caption) numbers with their scores."""
    images, captions = zip(*pairs, strict=True)
    scores = np.array(list(pairs.values()), dtype=np.float32)
    store.append(teacher, direction, digests(list(images)), digests(list(captions)), scores)


def known(store: ScoreStore, images: list[int], captions: list[int], teacher: str = "t", direction: str = "both"):
    """(image, caption) numbers to scores, for a corpus of these contents."""
    found = store.known(teacher, direction, digests(images), digests(captions))
    assert found.codes.dtype == np.int64
    assert found.scores.dtype == np.float32
    assert (np.diff(found.codes) > 0).all()
    return {
        (images[code // len(captions)], captions[code % len(captions)]): float(score)
        for code, score in zip(found.codes, found.scores, strict=True)
    }


@given(
    st.lists(st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 5)), st.floats(-9, 9, width=32), min_size=1), max_size=4),
    st.permutations(range(6)),
    st.permutations(range(4)),
)
@settings(max_examples=25, deadline=None)
def test_what_was_appended_is_found_by_content(tmp_path_factory, batches, images, captions) -> None:
    """Whatever the order and extent of the corpus; a key that occurs twice counts with its lower score."""
    store = ScoreStore(str(tmp_path_factory.mktemp("scores") / "store"))
    expected: dict[tuple[int, int], float] = {}
    for batch in batches:
        append(store, batch)
        for pair, score in batch.items():
            expected[pair] = min(score, expected.get(pair, score))
    inside = {pair: score for pair, score in expected.items() if pair[1] < 4}
    assert known(store, images, captions) == inside
    assert store.count("t") == sum(map(len, batches))


def test_teachers_and_directions_are_apart(tmp_path: Path) -> None:
    """The same pair may have four scores."""
    store = ScoreStore(str(tmp_path / "store"))
    keys = [("t", "both"), ("t", "i2t"), ("t", "t2i"), ("u", "both")]
    for number, (teacher, direction) in enumerate(keys):
        append(store, {(0, 1): float(number)}, teacher, direction)
    for number, (teacher, direction) in enumerate(keys):
        assert known(store, [0], [1], teacher, direction) == {(0, 1): float(number)}
    assert (store.count("t"), store.count("u"), store.count("v")) == (3, 1, 0)


def test_a_store_that_is_not_there_knows_nothing(tmp_path: Path) -> None:
    """Reading makes no folder."""
    store = ScoreStore(str(tmp_path / "store"))
    assert known(store, [0], [1]) == {}
    assert store.count("t") == 0
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_with_its_whole_batch(tmp_path: Path, bad: float) -> None:
    """The message names the pair; nothing is stored."""
    store = ScoreStore(str(tmp_path / "store"))
    pair = f"image {digests([3]).tobytes().hex()}, caption {digests([4]).tobytes().hex()}"
    with pytest.raises(StoreError, match=f"1 of 2 teacher scores are not finite .*{pair}.*nothing of this part was stored"):
        append(store, {(1, 2): 0.5, (3, 4): bad})
    assert known(store, [1, 3], [2, 4]) == {}


def _write_many(uri: str, writer: int, barrier) -> None:
    store = ScoreStore(uri)
    barrier.wait()
    for number in range(6):
        append(store, {(writer, 10 * number + caption): float(writer) for caption in range(10)})


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Appends of two processes to one new store, at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    uri = str(tmp_path / "store")
    writers = [context.Process(target=_write_many, args=(uri, writer, barrier)) for writer in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    found = known(ScoreStore(uri), [1, 2], list(range(60)))
    assert found == {(writer, caption): float(writer) for writer in (1, 2) for caption in range(60)}


def data_files(uri: Path, teacher: str) -> list[Path]:
    """Parquet files of one teacher."""
    files = sorted((uri / f"teacher={teacher}").glob("*.parquet"))
    assert files
    return files


@pytest.mark.parametrize("damage", ["truncate", "overwrite", "remove"])
def test_a_damaged_data_file_is_an_error_with_a_next_step(tmp_path: Path, damage: str) -> None:
    """Not fewer scores: they would be bought again without a word. Files of another teacher are not even opened."""
    store = ScoreStore(str(tmp_path / "store"))
    for teacher in ("t", "u"):
        append(store, {(0, caption): 1.0 for caption in range(50)}, teacher)
    (file,) = data_files(tmp_path / "store", "t")
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "truncate" else bytes(len(content)))
    with pytest.raises(StoreError, match=r"the score store cannot be read .*; restore the damaged or missing file"):
        known(store, [0], list(range(50)))
    assert len(known(store, [0], list(range(50)), "u")) == 50


def test_a_damaged_log_is_an_error(tmp_path: Path) -> None:
    """The list of files is part of the store."""
    store = ScoreStore(str(tmp_path / "store"))
    append(store, {(0, 1): 1.0})
    (tmp_path / "store" / "_delta_log" / "00000000000000000000.json").write_text("{")
    with pytest.raises(StoreError, match="the score store cannot be read"):
        known(store, [0], [1])


def test_a_foreign_table_is_refused(tmp_path: Path) -> None:
    """A Delta table of something else."""
    deltalake.write_deltalake(str(tmp_path / "store"), pa.table({"teacher": ["t"], "n": [1]}), partition_by=["teacher"])
    with pytest.raises(StoreError, match="columns are teacher, n; expected teacher, image_digest"):
        known(ScoreStore(str(tmp_path / "store")), [0], [1])


def test_a_store_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "store").write_text("in the way")
    with pytest.raises(StoreError, match=r"scores cannot be added to the store .*run the same command again"):
        append(ScoreStore(str(tmp_path / "store")), {(0, 1): 1.0})
