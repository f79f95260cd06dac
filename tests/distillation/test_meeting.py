"""What is encoded beside the pairs of a batch: candidates by definition, each content once, drawn evenly."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.corpus.reader import Split
from cprd_pipeline.distillation.batches import BatchRows, PairSampler
from cprd_pipeline.distillation.loop_settings import Encode
from cprd_pipeline.distillation.meeting import CandidateDraw, Meeting, Meetings, in_batch
from tests.distillation.list_cases import DIRECTIONS, Direction, World, random_batch, random_world

SEEDS = st.integers(0, 2**31)


def draw_of(world: World, seed: int = 0, candidates: int = 4, among: int = 64) -> CandidateDraw:
    return CandidateDraw(Encode(candidates=candidates, among=among), world.knowledge, world.positives, seed)


def queries_of(world: World, direction: Direction, rows: BatchRows) -> list[int]:
    return world.asking(direction, rows.images if direction == "i2t" else rows.captions)


def extras_of(meeting: Meeting, direction: Direction) -> list[int]:
    """Items that queries of the direction drew."""
    drawn = meeting.captions if direction == "i2t" else meeting.images
    return [int(row) for row in drawn[len(meeting.rows.images) :]]


def in_the_batch(world: World, direction: Direction, rows: BatchRows) -> set[int]:
    return set(world.content(direction, rows.captions if direction == "i2t" else rows.images))


@settings(deadline=None)
@given(seed=SEEDS, each=st.booleans(), among=st.integers(1, 9))
def test_with_room_for_all_the_best_candidates_of_each_query_are_encoded(seed: int, each: bool, among: int) -> None:
    """The first `among` candidates of every list, positives not counted, less what the batch holds under any id."""
    world, rows = random_world(seed, each=each), random_batch(seed)
    meeting = draw_of(world, candidates=among, among=among).meeting(rows, 3)
    for direction in DIRECTIONS:
        wanted = {item for query in queries_of(world, direction, rows) for item in world.candidates(direction, query)[:among]}
        assert extras_of(meeting, direction) == sorted(wanted - in_the_batch(world, direction, rows))


@settings(deadline=None)
@given(seed=SEEDS, each=st.booleans(), candidates=st.integers(1, 4), among=st.integers(1, 9))
def test_what_is_drawn_is_a_candidate_and_no_content_is_encoded_twice(seed: int, each: bool, candidates: int, among: int) -> None:
    """Each drawn item is one of the first candidates of some query, no more of them than the queries may draw."""
    world, rows = random_world(seed, each=each), random_batch(seed)
    meeting = draw_of(world, seed, candidates, among).meeting(rows, 3)
    assert meeting.rows is rows
    assert meeting.images[: len(rows.images)].tolist() == rows.images.tolist()
    assert meeting.captions[: len(rows.captions)].tolist() == rows.captions.tolist()
    for direction in DIRECTIONS:
        extras, queries = extras_of(meeting, direction), queries_of(world, direction, rows)
        assert len(set(extras)) == len(extras)
        assert not set(extras) & in_the_batch(world, direction, rows)
        assert set(extras) <= {item for query in queries for item in world.candidates(direction, query)[:among]}
        assert len(extras) <= candidates * len(queries)


@settings(deadline=None)
@given(seed=SEEDS, each=st.booleans())
def test_what_is_encoded_is_every_content_once(seed: int, each: bool) -> None:
    """Also of the pairs, which the random batch repeats; every item finds its own content, the first of each stands for it."""
    world, rows = random_world(seed, each=each), random_batch(seed)
    meeting = draw_of(world).meeting(rows, 3)
    sides = [
        (meeting.images, meeting.encoded_images, world.knowledge.canonical_image),
        (meeting.captions, meeting.encoded_captions, world.knowledge.canonical_caption),
    ]
    for items, once, contents in sides:
        encoded = contents[once.rows].tolist()
        assert len(set(encoded)) == len(encoded)
        assert once.rows.tolist() == [row for at, row in enumerate(items) if contents[row] not in contents[items[:at]]]
        places = np.arange(len(items)) if once.places is None else once.places
        assert contents[once.rows][places].tolist() == contents[items].tolist()


def test_where_all_differ_nothing_is_looked_up() -> None:
    """No places, and without contents every item is encoded, repeated or not."""
    rows = BatchRows.of_pairs(np.array([3, 1]), np.array([5, 5]))
    different = Meeting(rows, rows.images, rows.captions, rows.images, np.array([5, 4]))
    for meeting in (different, in_batch(rows)):
        for items, once in ((rows.images, meeting.encoded_images), (rows.captions, meeting.encoded_captions)):
            assert once.rows is items
            assert once.places is None


def test_a_query_draws_as_many_as_it_may_each_as_often() -> None:
    """One query with eight candidates draws two of the first five: 800 of 2,000 steps hold each, no step holds another."""
    world = random_world(4)
    queries = [row for row in set(world.knowledge.canonical_image.tolist()) if len(world.candidates("i2t", row)) >= 6]
    query = queries[0]
    listed = world.candidates("i2t", query)
    taken = next(c for c in world.knowledge.canonical_caption.tolist() if c not in listed)
    rows = BatchRows.of_pairs(np.array([query]), np.array([taken]))
    draw, counts = draw_of(world, candidates=2, among=5), Counter[int]()
    for step in range(2000):
        extras = extras_of(draw.meeting(rows, step), "i2t")
        assert len(extras) == 2
        counts.update(extras)
    assert set(counts) == set(listed[:5])
    assert max(abs(count - 800) for count in counts.values()) < 110  # five standard deviations


def test_a_meeting_is_a_function_of_seed_and_step() -> None:
    """Asking again, in another order or a fresh object, gives the same; another step or seed another draw."""
    world, rows = random_world(7), random_batch(7)
    draw = draw_of(world, seed=1, candidates=1)
    asked = [draw.meeting(rows, step).captions.tolist() for step in (0, 1, 2, 3)]
    again = [draw_of(world, seed=1, candidates=1).meeting(rows, step).captions.tolist() for step in (3, 2, 1, 0)]
    assert asked == again[::-1]
    assert len({tuple(captions) for captions in asked}) > 1
    others = [draw_of(world, seed=seed, candidates=1).meeting(rows, 0).captions.tolist() for seed in range(2, 6)]
    assert any(other != asked[0] for other in others)


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, each=st.booleans())
def test_every_picture_that_is_drawn_was_announced(seed: int, each: bool) -> None:
    """Pictures are read before training begins: the batches' and all that candidates can bring in."""
    world, rows = random_world(seed, each=each), random_batch(seed)
    meetings = Meetings(Fixed(rows), draw_of(world, candidates=9))
    announced = set(meetings.image_rows.tolist())
    assert all(set(meetings.at(step).images.tolist()) <= announced for step in range(3))


class Fixed:
    """Draws the same pairs at every step."""

    def __init__(self, rows: BatchRows) -> None:
        self._rows = rows

    @property
    def image_rows(self) -> np.ndarray:
        return np.unique(self._rows.images)

    def batch(self, step: int) -> BatchRows:
        return self._rows


def test_without_a_draw_the_pairs_are_all_that_is_encoded() -> None:
    """Batch and meeting are the same rows, step by step."""
    pairs = np.stack([np.arange(8), np.arange(8)], axis=1)
    sampler = PairSampler(Split("train", pairs[:, 0], pairs[:, 1], pairs), 4, 0)
    meetings = Meetings(sampler)
    assert meetings.image_rows.tolist() == list(range(8))
    for step in range(3):
        rows, found = sampler.batch(step), meetings.at(step)
        for meeting in (found, in_batch(rows)):
            assert (meeting.images.tolist(), meeting.captions.tolist()) == (rows.images.tolist(), rows.captions.tolist())
            assert meeting.rows.paired.tolist() == rows.paired.tolist()
