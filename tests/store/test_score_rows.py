"""Sorting, gathering and naming: the parts of the score store that touch no disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.store import score_pile
from cprd_pipeline.store.score_files import content_digest, decode, digest_in, encode, place_in
from cprd_pipeline.store.score_pile import RowIndex, ScorePile
from cprd_pipeline.store.score_rows import COLUMNS, DIRECTIONS, ScoreRows, from_digests, sort_rows
from cprd_pipeline.store.score_sort import range_count, sorted_ranges
from tests.store.score_pairs import digests

KEYED = st.tuples(st.integers(0, 6), st.integers(0, 6), st.sampled_from(DIRECTIONS))
PARTS = st.lists(st.lists(st.tuples(KEYED, st.floats(-9, 9, width=32)), min_size=1, max_size=8), min_size=1, max_size=6)
Key = tuple[bytes, bytes, str]


def rows_of(part: list[tuple[tuple[int, int, str], float]]) -> ScoreRows:
    """As they come, directions mixed."""
    keys, scores = zip(*part, strict=True)
    images, captions, directions = zip(*keys, strict=True)
    rows = from_digests(digests(list(images)), digests(list(captions)), "both", np.array(scores, dtype=np.float32))
    return replace(rows, direction=np.array([DIRECTIONS.index(name) for name in directions], dtype=np.int8))


def listed(rows: ScoreRows) -> list[tuple[Key, float]]:
    """Keys as bytes, with the score, in the rows' order."""
    return [
        ((rows.images[image].tobytes(), rows.captions[caption].tobytes(), DIRECTIONS[direction]), float(score))
        for image, caption, direction, score in zip(rows.image, rows.caption, rows.direction, rows.scores, strict=True)
    ]


def lowest(parts: list[list[tuple[tuple[int, int, str], float]]]) -> dict[Key, float]:
    """What the rule for double keys leaves of them, by a plain loop."""
    expected: dict[Key, float] = {}
    for (image, caption, direction), score in (pair for part in parts for pair in part):
        key = (digests([image]).tobytes(), digests([caption]).tobytes(), direction)
        expected[key] = min(score, expected.get(key, score))
    return expected


@given(PARTS, st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_sorting_keeps_the_lowest_score_of_each_key(tmp_path_factory, parts, range_rows: int) -> None:
    """In memory and, range by range, over the disk: the same rows in the same order, nothing left behind."""
    expected = sorted(lowest(parts).items())
    rows = [rows_of(part) for part in parts]
    whole = sort_rows(rows)
    assert listed(whole) == expected
    assert len(np.unique(whole.image)) == len(whole.images)
    scratch: Path = tmp_path_factory.mktemp("scratch")
    total = sum(map(len, rows))
    ranges = list(sorted_ranges(iter(rows), total, scratch, range_rows))
    assert len(ranges) == range_count(total, range_rows)
    assert [pair for part in ranges for pair in listed(part)] == expected
    assert list(scratch.iterdir()) == []


@given(PARTS)
@settings(max_examples=30, deadline=None)
def test_a_file_gives_back_its_rows(parts) -> None:
    """Equal rows are equal bytes, whatever order they came in; other programs see the table's plain columns."""
    rows = sort_rows([rows_of(part) for part in parts])
    content = encode(rows)
    assert encode(sort_rows([rows_of(part) for part in reversed(parts)])) == content
    (found,) = decode(content)
    assert listed(found) == listed(rows)
    schema = pq.read_schema(pa.BufferReader(content))
    assert schema.names == COLUMNS
    assert schema.types == [pa.binary(), pa.binary(), pa.string(), pa.float32()]
    assert not any(schema.field(name).nullable for name in COLUMNS)


def test_names_tell_digest_and_place() -> None:
    """Ours only; another writer's names promise nothing."""
    digest = content_digest(b"scores")
    assert digest_in(f"{digest}.parquet") == digest
    assert place_in(f"{digest}.parquet") is None
    assert digest_in(f"00002-of-00031-{digest}.parquet") == digest
    assert place_in(f"00002-of-00031-{digest}.parquet") == (2, 31)
    assert digest_in("part-00000-2bbf2082-c2ef-4874-85e7-bbac2962e240-c000.snappy.parquet") is None


def test_rows_are_found_by_digest() -> None:
    """Digests that differ only in trailing zeros are different ones; nothing is found where nothing is."""
    ending = np.zeros((3, 16), dtype=np.uint8)
    ending[:, 0] = [7, 7, 6]
    ending[1, 15] = 1
    index = RowIndex(ending)
    missing = ending[:1].copy()
    missing[0, 14] = 1
    assert index.find(np.concatenate([ending[::-1], missing])).tolist() == [2, 1, 0, -1]
    assert RowIndex(ending[:0]).find(ending).tolist() == [-1, -1, -1]


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 199), st.floats(-9, 9, width=32))), max_size=6),
    st.sampled_from([1, 40, 200]),
    st.sampled_from([1, 5, 1 << 20]),
)
@settings(max_examples=60, deadline=None)
def test_a_pile_is_sorted_and_keeps_the_lowest(batches, captions: int, spread: int) -> None:
    """Whatever the batches, the shape of the corpus, and how often they are spread over the buckets."""
    expected: dict[int, float] = {}
    before, score_pile._SPREAD_ROWS = score_pile._SPREAD_ROWS, spread
    try:
        pile = ScorePile(200 // captions, captions)
        for batch in batches:
            pile.add(np.array([code for code, _ in batch], dtype=np.int64), np.array([s for _, s in batch], dtype=np.float32))
            for code, score in batch:
                expected[code] = min(score, expected.get(code, score))
        found = pile.sorted()
    finally:
        score_pile._SPREAD_ROWS = before
    assert dict(zip(found.codes.tolist(), found.scores.tolist(), strict=True)) == expected
    assert found.codes.tolist() == sorted(expected)
