"""Rows of ids are those of a plain dictionary, whatever the hashes are; and the ids of a side are hashed once."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.corpus import lookup
from cprd_pipeline.corpus.id_hashes import id_hashes
from cprd_pipeline.corpus.lookup import IdLookup
from tests.corpus.counted_hashes import count_hashes

# Of lengths on both sides of a word's, and with the byte that stands where an id has none.
NAMES = st.text(alphabet="\0aé", max_size=10)
TYPES = st.sampled_from([pa.string(), pa.large_string()])


def make_hashes_collide(patch: pytest.MonkeyPatch, bits: int, others: bool) -> None:
    """Leave the uppermost bits of a hash and make all others equal; tables are used for any number of ids, in blocks of three."""
    left = np.uint64(2**64 - 2 ** (64 - bits))
    patch.setattr(lookup, "id_hashes", lambda ids: id_hashes(ids) | ~left if others else id_hashes(ids) & left)
    patch.setattr(lookup, "_FEW", -1)
    patch.setattr(lookup, "_BLOCK", 3)


@st.composite
def columns(draw: st.DrawFn, names: list[str]) -> pa.ChunkedArray:
    """Some of the names in chunks, of which some are parts of longer arrays."""
    kind, chunks = draw(TYPES), []
    for wanted in draw(st.lists(st.lists(st.sampled_from(names), max_size=8), max_size=4)):
        before = draw(st.integers(0, 2))
        chunks.append(pa.array(["before"] * before + wanted + ["behind"], kind).slice(before, len(wanted)))
    return pa.chunked_array(chunks, kind)


@settings(deadline=None)
@given(st.data(), st.lists(NAMES, min_size=1, max_size=12), st.sampled_from([0, 1, 3, 64]), st.booleans())
def test_rows_are_those_of_a_dictionary(data: st.DataObject, names: list[str], bits: int, others: bool) -> None:
    """Of an id that occurs twice the first row, whether all hashes are equal, some or none; the first stranger is named."""
    ids = pa.array(["before", *names], data.draw(TYPES)).slice(1)
    asked = data.draw(columns([*names, *data.draw(st.lists(NAMES, max_size=1))]))
    with pytest.MonkeyPatch.context() as patch:
        make_hashes_collide(patch, bits, others)
        check_rows(names, ids, asked)
    # So few ids are left to Arrow where as many are asked for.
    check_rows(names, ids, asked)


def check_rows(names: list[str], ids: pa.Array, asked: pa.ChunkedArray) -> None:
    """Compare with a dictionary."""
    first = {name: row for row, name in reversed([*enumerate(names)])}
    strangers = [name for name in asked.to_pylist() if name not in first]
    if not strangers:
        assert IdLookup(ids).rows(asked).tolist() == [first[name] for name in asked.to_pylist()]
        return
    with pytest.raises(KeyError) as error:
        IdLookup(ids).rows(asked)
    assert error.value.args == (strangers[0],)


@pytest.mark.parametrize("few", [-1, 9])
def test_a_null_is_no_id(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """Not even where the side has an empty id."""
    monkeypatch.setattr(lookup, "_FEW", few)
    ids = IdLookup(pa.array(["", "a"]))
    assert ids.rows(pa.array(["a", "", "a"])).tolist() == [1, 0, 1]
    with pytest.raises(KeyError, match="None"):
        ids.rows(pa.array(["a", None, ""]))


def test_a_side_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second part costs what it asks for."""
    counts = count_hashes(monkeypatch)
    names = pa.array([f"image-{row:06d}" for row in range(1000)])
    ids = IdLookup(names)
    for rows in (range(1000), range(990, 1000), range(5, 8)):
        assert ids.rows(names.take(pa.array(rows))).tolist() == [*rows]
    assert sum(counts) == 1000 + 1000 + 10 + 3


def test_a_table_takes_little_more_than_its_keys() -> None:
    """At most 12 bytes an id, and a few steps to an id's key: hashes of similar ids are spread evenly."""
    for names in ([f"image-{row:09d}" for row in range(140_000)], [f"https://example.org/{row}/o.jpg" for row in range(140_000)]):
        ids = IdLookup(pa.array(names))
        assert np.array_equal(ids.rows(pa.array(names[::-1000])), np.arange(140_000)[::-1000])
        keys, _, starts, _ = ids._table
        assert keys.nbytes + starts.nbytes <= 12 * 140_001
        assert np.diff(starts).max() < 16


def test_hashes_depend_on_the_text_alone() -> None:
    """Not on what stands beside it, nor on the size of the offsets' array; texts that differ in any byte or in length differ."""
    names = ["", "\0", "\0\0", "a", "a\0", "abcdefgh", "abcdefgh\0", "abcdefghi", "bbcdefgh", "x" * 16, "x" * 17, "x" * 1000]
    whole = id_hashes(pa.array(names, pa.large_string()))
    assert len(set(whole.tolist())) == len(names)
    for row, name in enumerate(names):
        assert id_hashes(pa.array([name], pa.large_string())).tolist() == [whole[row]]
        assert id_hashes(pa.array(["é", *names, "z"], pa.large_string()).slice(1 + row, 1)).tolist() == [whole[row]]
    assert id_hashes(pa.array([], pa.large_string())).tolist() == []
