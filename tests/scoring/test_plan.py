"""The plan: every wanted pair once, nothing that is stored, cut where images end."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.corpus.reader import Items
from cprd_pipeline.errors import StoreError
from cprd_pipeline.scoring.candidates import CandidatesPart, Lists
from cprd_pipeline.scoring.pairs import PairSpace
from cprd_pipeline.scoring.plan import image_ends, make_plan, wanted_pairs
from cprd_pipeline.store.fingerprint import stack_digests
from tests.corpus.counted_hashes import count_hashes


def space_of(images: list[int], captions: list[int]) -> PairSpace:
    """Rows with these contents."""
    return PairSpace(_side("i", images), _side("c", captions))


def _side(prefix: str, contents: list[int]) -> Items:
    ids = [f"{prefix}{row:03d}" for row in range(len(contents))]
    # A trailing zero byte: digests are not C strings.
    digests = stack_digests(bytes([value + 1]) + bytes(15) for value in contents)
    return Items(ids, digests, np.array(["train"] * len(ids), dtype=np.object_))


def part_of(space: PairSpace, direction: str, entries: list[tuple[int, int]], positives: list[tuple[int, int]]) -> CandidatesPart:
    """A part whose entries are (image row, caption row), one query an entry."""
    lists = []
    for pairs in (entries, positives):
        rows = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        query, item = (rows[:, 0], rows[:, 1]) if direction == "i2t" else (rows[:, 1], rows[:, 0])
        codes = space.codes(direction, query, item)
        lists.append(Lists(np.ones(len(rows), dtype=np.int64), item, codes, np.zeros(len(rows), dtype=np.float32)))
    return CandidatesPart("part", direction, pa.array(["q"] * len(entries), pa.string()), *lists)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], list[int], dict[str, list[tuple[int, int]]], set[int], int]:
    """Contents of both sides, lists of both directions, which wanted pairs are stored, and a part size."""
    images = draw(st.lists(st.integers(0, 6), min_size=1, max_size=8))
    captions = draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))
    pair = st.tuples(st.integers(0, len(images) - 1), st.integers(0, len(captions) - 1))
    lists = {name: draw(st.lists(pair, max_size=40)) for name in ("i2t", "t2i", "positives")}
    return images, captions, lists, draw(st.sets(st.integers(0, 80))), draw(st.integers(1, 12))


@given(cases())
@settings(max_examples=150, deadline=None)
def test_each_wanted_pair_is_planned_once_unless_it_is_stored(case) -> None:
    """Over both directions and equal contents; what is stored, wanted or not, is not planned; the counts add up."""
    images, captions, lists, stored, part_pairs = case
    space = space_of(images, captions)
    parts = [part_of(space, "i2t", lists["i2t"], lists["positives"]), part_of(space, "t2i", lists["t2i"], [])]
    wanted, requested = wanted_pairs(parts, space)
    known = np.array(sorted(code for code in stored if code < len(space.images) * len(space.captions)), dtype=np.int64)
    plan = make_plan(wanted, requested, known, space)

    contents = {(images[i], captions[c]) for entries in lists.values() for i, c in entries}
    kept = {_contents_of(space, images, captions, code) for code in known}
    todo = [_contents_of(space, images, captions, code) for code in plan.todo]
    assert len(todo) == len(set(todo))
    assert set(todo) == contents - kept
    assert plan.requested == sum(len(entries) for entries in lists.values())
    assert plan.requested == plan.duplicate + plan.stored + len(plan.todo)
    assert plan.stored == len(contents & kept)
    assert plan.images.tolist() == np.unique(space.images_of(plan.todo)).tolist()
    assert plan.ends.tolist() == image_ends(space.images_of(plan.todo)).tolist()
    _check_parts(space, plan, part_pairs)


def _contents_of(space, images, captions, code):
    image, caption = divmod(int(code), len(space.captions))
    return images[space.images.rows[image]], captions[space.captions.rows[caption]]


def _check_parts(space, plan, part_pairs):
    parts = list(plan.parts(part_pairs))
    assert np.array_equal(np.concatenate([np.empty(0, np.int64), *parts]), plan.todo)
    owners = [set(space.images_of(part).tolist()) for part in parts]
    assert sum(len(owner) for owner in owners) == len(set().union(set(), *owners))
    for part in parts[:-1]:
        # Full, but not before its last image.
        assert len(part) >= part_pairs
        assert (space.images_of(part) != space.images_of(part)[-1]).sum() < part_pairs


@given(cases(), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_run_that_goes_on_makes_the_same_parts(case, done: int) -> None:
    """After some whole parts are stored, the rest is cut at the same places."""
    images, captions, lists, _, part_pairs = case
    space = space_of(images, captions)
    wanted, requested = wanted_pairs([part_of(space, "i2t", lists["i2t"], lists["positives"])], space)
    whole = list(make_plan(wanted, requested, np.empty(0, np.int64), space).parts(part_pairs))
    known = np.concatenate([np.empty(0, np.int64), *whole[:done]])
    rest = list(make_plan(wanted, requested, known, space).parts(part_pairs))
    assert [part.tolist() for part in rest] == [part.tolist() for part in whole[done:]]


def test_image_ends() -> None:
    """One entry an image, none for nothing."""
    assert image_ends(np.array([3, 3, 4, 9, 9])).tolist() == [2, 3, 5]
    assert image_ends(np.empty(0, dtype=np.int64)).tolist() == []


def test_ids_are_hashed_once_for_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a side; a part costs what it names. Ids have offsets of 64 bits."""
    counts = count_hashes(monkeypatch)
    space = space_of([*range(9)], [0])
    for _ in range(20):
        assert space.images.rows_of(pa.array(["i003", "i001"]), "here").tolist() == [3, 1]
    assert sum(counts) == 9 + 20 * 2
    assert space.images.ids.type == pa.large_string()


def test_pairs_speak_of_the_first_id_of_a_content() -> None:
    """Codes go back to ids; an id that no corpus row has is named with its file."""
    space = space_of([5, 2, 5], [1, 1, 3, 4])
    assert (len(space.images), len(space.captions)) == (2, 3)
    code = space.codes("t2i", np.array([3]), np.array([2]))
    assert code.tolist() == [0 * 3 + 2]
    assert space.name(int(code[0])) == "image 'i000' with caption 'c003'"
    with pytest.raises(StoreError, match=r"some/file: 'x' is not in the corpus; expected ids of this corpus"):
        space.images.rows_of(pa.array(["i001", "x"]), str(Path("some/file")))
