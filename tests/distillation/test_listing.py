"""The lists of a batch are those of a slow loop over its queries and items that asks plain dictionaries."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.corpus.reader import Rows, Split
from cprd_pipeline.distillation.bank_items import BankItems
from cprd_pipeline.distillation.batches import BatchRows, PositivePairs
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.listing import BatchLists, Listing
from cprd_pipeline.distillation.losses.lists import TeacherLists
from cprd_pipeline.distillation.losses.shuffle import shuffle_keys, shuffle_teacher
from cprd_pipeline.distillation.meeting import Meeting, in_batch
from cprd_pipeline.distillation.pair_table import PairTable, PairTableBuilder
from cprd_pipeline.distillation.settings import DistillSettings
from tests.distillation.list_cases import CAPTIONS, DIRECTIONS, IMAGES, Direction, World, random_batch, random_world

SEEDS = st.integers(0, 2**31)
RULES = st.fixed_dictionaries(
    {
        "valid": st.sampled_from(["listed", "rankings"]),
        "positive_in_list": st.booleans(),
        "easy_negatives": st.sampled_from(["in_batch", "bank", "none"]),
    }
)
MEETINGS = st.sampled_from(["in_batch", "encode", "bank"])


def settings_of(items: str = "in_batch", **values: Any) -> DistillSettings:
    """The CPRD objective; easy negatives of a bank where there is one."""
    return DistillSettings.model_validate({"rankings": ("r",), "items": items, **values})


@dataclass
class Case:
    """A step of a world: with extra items, or with a bank, or with neither."""

    world: World
    meeting: Meeting
    banked: tuple[BankItems, BankItems] | None

    def asking(self, direction: Direction) -> list[int]:
        rows = self.meeting.rows
        return self.world.asking(direction, rows.images if direction == "i2t" else rows.captions)

    def items(self, direction: Direction) -> list[int]:
        """Contents of the columns that all queries have in common."""
        rows = self.meeting.captions if direction == "i2t" else self.meeting.images
        easy = [] if self.banked is None else self.banked[direction == "t2i"].easy.tolist()
        return self.world.content(direction, rows) + easy

    def is_positive(self, direction: Direction, query: int, item: int) -> bool:
        """Annotated, or the contents of a pair of the batch that counts as one."""
        rows = self.meeting.rows
        pairs = zip(self.asking("i2t"), self.asking("t2i"), rows.paired.tolist(), strict=True)
        drawn = {(image, caption) for image, caption, paired in pairs if paired}
        return self.world.is_annotated(direction, query, item) or ((query, item) if direction == "i2t" else (item, query)) in drawn


def case_of(seed: int, kind: str, *, each: bool) -> Case:
    world, rows, random = random_world(seed, each=each), random_batch(seed), np.random.default_rng([seed, 2])
    if kind == "bank":
        captions = some_banked(random, CAPTIONS, len(rows.images), world.knowledge.canonical_caption)
        images = some_banked(random, IMAGES, len(rows.images), world.knowledge.canonical_image)
        return Case(world, in_batch(rows), (captions, images))
    if kind == "encode":
        more = random.integers(0, IMAGES, random.integers(0, 5)), random.integers(0, CAPTIONS, random.integers(0, 5))
        return Case(world, Meeting(rows, *(np.concatenate([a, b]) for a, b in zip(rows[:2], more, strict=True))), None)
    return Case(world, in_batch(rows), None)


def some_banked(random: np.random.Generator, count: int, queries: int, canonical: Rows) -> BankItems:
    """Any easy items, and for each query zero to three candidates with scores."""
    easy = np.unique(canonical[random.integers(0, count, random.integers(0, 4))])
    own, scores = np.full((queries, 3), -1), np.full((queries, 3), np.nan, dtype=np.float32)
    for query, length in enumerate(random.integers(0, 4, queries)):
        own[query, :length] = random.integers(0, count, length)
        scores[query, :length] = random.integers(-3, 4, length)
    return BankItems(easy, own, scores)


def lists_of(case: Case, rules: dict[str, Any], **values: Any) -> BatchLists:
    items = "bank" if rules["easy_negatives"] == "bank" or case.banked else "in_batch"
    chosen = settings_of(items, cprd=rules, **values)
    return Listing(chosen, case.world.knowledge, case.world.positives).of(case.meeting, 5, case.banked)


def expected_lists(case: Case, direction: Direction, rules: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """By definition, query by query and column by column."""
    world, rows, items = case.world, case.meeting.rows, case.items(direction)
    banked = None if case.banked is None else case.banked[direction == "t2i"]
    width = len(items) + (0 if banked is None else banked.own.shape[1])
    shape = (len(rows.images), width)
    found = {name: np.zeros(shape, dtype=np.bool_) for name in ("listed", "valid", "easy")} | {
        "teacher": np.zeros(shape, np.float32)
    }
    cutoffs = world.knowledge.image_cutoffs[rows.images] if direction == "i2t" else world.knowledge.caption_cutoffs[rows.captions]
    for place, query in enumerate(case.asking(direction)):
        for column in range(width):
            if column >= len(items):
                assert banked is not None
                score = banked.scores_QK[place, column - len(items)]
                said, positive, own, easy = not np.isnan(score), False, False, False
            else:
                item = items[column]
                said, positive = (query, item) in world.said[direction], case.is_positive(direction, query, item)
                score = world.said[direction][query, item][0] if said else 0.0
                own = said and column == place and bool(rows.paired[place]) and rules["positive_in_list"]
                easy = not said and not positive and not world.is_flagged(direction, query, item)
            candidate = said and not positive
            reaches = rules["valid"] == "listed" or score >= cutoffs[place]
            at = (place, column)
            found["listed"][at], found["valid"][at] = candidate or own, own or (candidate and reaches)
            found["easy"][at] = easy and rules["easy_negatives"] != "none"
            found["teacher"][at] = score if said else 0.0
    return found


def as_arrays(lists: TeacherLists) -> dict[str, npt.NDArray[Any]]:
    return {name: getattr(lists, f"{name}_QN").numpy() for name in ("listed", "valid", "easy", "teacher")}


@settings(deadline=None, max_examples=150)
@given(seed=SEEDS, each=st.booleans(), kind=MEETINGS, rules=RULES)
def test_lists_follow_from_their_definition(seed: int, each: bool, kind: str, rules: dict[str, Any]) -> None:
    """Candidates, the own positive, valid items and easy negatives of both directions, column by column."""
    case = case_of(seed, kind, each=each)
    lists = lists_of(case, rules)
    for direction, found in zip(DIRECTIONS, (lists.i2t, lists.t2i), strict=True):
        assert found is not None
        for name, expected in expected_lists(case, direction, rules).items():
            np.testing.assert_array_equal(as_arrays(found)[name], expected, err_msg=f"{direction} {name}")


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, each=st.booleans(), kind=MEETINGS)
def test_no_positive_and_no_flagged_pair_is_a_contrastive_negative(seed: int, each: bool, kind: str) -> None:
    """Excluded are annotated and drawn positives under every id of their contents, and what either side flags; nothing else."""
    case = case_of(seed, kind, each=each)
    lists = lists_of(case, {"easy_negatives": "in_batch"})
    images, captions = case.asking("i2t"), case.asking("t2i")
    for (i, image), (j, caption) in product(enumerate(images), enumerate(captions)):
        expected = case.is_positive("i2t", image, caption) or case.world.is_flagged("i2t", image, caption)
        assert bool(lists.excluded_BB[i, j]) == expected
    assert lists.paired_B.tolist() == case.meeting.rows.paired.tolist()


def table_of(said: dict[tuple[int, int], float], flagged: set[tuple[int, int]] | None = None) -> PairTable:
    """Scores of four queries and four items."""
    queries, items = np.array(list(said)).T
    building = PairTableBuilder(4, 4)
    building.count(queries)
    marks = [pair in (flagged or set()) for pair in said]
    building.place(queries, items, np.array(list(said.values()), dtype=np.float32), np.array(marks))
    return building.finish()


def small(i2t: PairTable, t2i: PairTable | None, canonical_image: list[int]) -> TeacherKnowledge:
    """Four images and four captions; image and caption 0 are the only annotated pair."""
    never = np.full(4, np.inf, dtype=np.float32)
    return TeacherKnowledge(i2t, t2i, never, never, np.array(canonical_image), np.arange(4), "teacher")


ONLY = np.array([[0, 0]])
ANNOTATED = PositivePairs(Split("train", np.array([0]), np.array([0]), ONLY), 4)


@pytest.mark.parametrize("extras", [0, 1])
def test_a_drawn_partner_is_a_positive_of_every_row_with_its_content(extras: int) -> None:
    """Image 2 is image 1 again: the caption drawn for it is no candidate and no negative of image 1, whatever else is encoded."""
    said = {(0, 0): 5.0, (1, 1): 1.0, (1, 2): 2.0}
    told = small(table_of(said), None, [0, 1, 1, 3])
    rows = BatchRows(np.array([0, 1, 2]), np.array([0, 1, 2]), np.array([True, True, True]))
    meeting = Meeting(rows, np.append(rows.images, [3] * extras), rows.captions)
    lists = Listing(settings_of(), told, ANNOTATED).of(meeting, 0)
    assert lists.excluded_BB.tolist() == [[True, False, False], [False, True, True], [False, True, True]]
    for found in (lists.i2t, lists.t2i):
        assert found is not None
        assert found.listed_QN[:, :3].tolist() == np.eye(3, dtype=bool).tolist()
        assert found.easy_QN[:, :3].tolist() == [[False, True, True], [True, False, False], [True, False, False]]


def test_a_pair_that_does_not_count_as_a_positive_is_a_candidate() -> None:
    """With `positive: none` the best of an unpaired image's list stands beside it, and is ranked like any other."""
    told = small(table_of({(0, 0): 5.0, (1, 1): 1.0, (1, 0): 2.0}), None, [0, 1, 2, 3])
    rows = BatchRows(np.array([0, 1]), np.array([0, 1]), np.array([True, False]))
    lists = Listing(settings_of(cprd={"valid": "rankings"}), told, ANNOTATED).of(in_batch(rows), 0)
    assert lists.i2t is not None
    assert lists.i2t.listed_QN.tolist() == [[True, False], [True, True]]
    # The cutoffs are infinite: a positive would be valid all the same.
    assert lists.i2t.valid_QN.tolist() == [[True, False], [False, False]]
    assert lists.excluded_BB.tolist() == [[True, False], [False, False]]


def test_what_one_side_flags_is_an_easy_negative_of_neither() -> None:
    """A teacher whose scores depend on who asks flagged a pair that only the image was told of."""
    i2t, t2i = table_of({(0, 0): 5.0, (0, 1): 3.0}, {(0, 1)}), table_of({(0, 0): 4.0})
    rows = BatchRows.of_pairs(np.array([0, 3]), np.array([0, 1]))
    lists = Listing(settings_of(), small(i2t, t2i, [0, 1, 2, 3]), ANNOTATED).of(in_batch(rows), 0)
    assert lists.t2i is not None
    assert lists.t2i.easy_QN.tolist() == [[False, True], [False, False]]
    assert lists.excluded_BB.tolist() == [[True, True], [False, True]]


def test_without_a_teacher_only_annotations_are_excluded() -> None:
    """The contrastive loss alone has no lists."""
    world, rows = random_world(3), random_batch(3)
    chosen = DistillSettings.model_validate({"objective": "itc"})
    lists = Listing(chosen, None, world.positives).of(in_batch(rows), 0)
    assert (lists.i2t, lists.t2i) == (None, None)
    assert lists.excluded_BB.tolist() == [
        [world.is_annotated("i2t", image, caption) for caption in world.asking("t2i", rows.captions)]
        for image in world.asking("i2t", rows.images)
    ]
    assert lists.paired_B.tolist() == rows.paired.tolist()


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, kind=MEETINGS)
def test_the_control_deals_scores_by_the_rows_of_its_columns(seed: int, kind: str) -> None:
    """The teacher's lists, dealt with the keys of seed, step, direction, query and item, of the bank's own items too."""
    case = case_of(seed, kind, each=False)
    rules = {"valid": "rankings", "easy_negatives": "in_batch"}
    plain, dealt = (lists_of(case, rules, seed=4, shuffle_teacher=shuffled) for shuffled in (False, True))
    rows = case.meeting.rows
    for side, (queries, items) in enumerate([(rows.images, case.meeting.captions), (rows.captions, case.meeting.images)]):
        columns = np.tile(items, (len(queries), 1))
        if case.banked is not None:
            easy = np.tile(case.banked[side].easy, (len(queries), 1))
            columns = np.concatenate([columns, easy, case.banked[side].own], axis=1)
        keys = shuffle_keys(4, 5, side, queries, columns)
        expected = shuffle_teacher((plain.i2t, plain.t2i)[side], keys)
        for name, array in as_arrays((dealt.i2t, dealt.t2i)[side]).items():
            np.testing.assert_array_equal(array, as_arrays(expected)[name])


def test_lists_move_to_a_device_as_a_whole() -> None:
    """Every tensor of the lists; without a teacher there are fewer."""
    case = case_of(0, "in_batch", each=False)
    with_teacher = lists_of(case, {"easy_negatives": "none"}).to(torch.device("meta"))
    assert with_teacher.i2t is not None
    tensors = [with_teacher.excluded_BB, with_teacher.paired_B, with_teacher.i2t.teacher_QN, with_teacher.i2t.easy_QN]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    without = with_teacher._replace(i2t=None, t2i=None).to(torch.device("meta"))
    assert (without.i2t, without.t2i) == (None, None)
