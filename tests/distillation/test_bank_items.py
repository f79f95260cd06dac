"""What the queries of a step meet in the bank, against dictionaries, from the draw to the similarities."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cprd_pipeline.distillation.bank import FeatureBank
from cprd_pipeline.distillation.bank_items import BankDraw, bank_features
from cprd_pipeline.distillation.banks import Banks
from cprd_pipeline.distillation.batches import BatchRows
from cprd_pipeline.distillation.listing import Listing
from cprd_pipeline.distillation.loop_settings import Bank
from cprd_pipeline.distillation.meeting import Meeting, in_batch
from cprd_pipeline.distillation.objective import compare
from cprd_pipeline.distillation.settings import DistillSettings
from tests.distillation.list_cases import CAPTIONS, DIRECTIONS, IMAGES, Direction, World, random_batch, random_world

SEEDS = st.integers(0, 2**31)
WIDTH = 5
COUNTS = {"i2t": CAPTIONS, "t2i": IMAGES}
IN_TMP = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def vectors(count: int, seed: int) -> torch.Tensor:
    """Vectors of length one, float64."""
    found = torch.randn(count, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(found, dim=1)


def bank_of(world: World, direction: Direction, folder: Path, seed: int, share: float) -> FeatureBank:
    """The bank that queries of a direction ask: a share of its contents is held."""
    contents = np.unique(world.content(direction, np.arange(COUNTS[direction])))
    held = contents[np.random.default_rng([seed, 3]).random(len(contents)) < share]
    bank = FeatureBank(COUNTS[direction], folder / "bank", 10**6)
    bank.put(held, vectors(len(held), seed), 0)
    return bank


def draw_of(world: World, *, candidates: int = 3, easy: int = 0, seed: int = 0) -> BankDraw:
    return BankDraw(Bank(candidates=candidates), easy, world.knowledge, world.positives, seed)


def queries_of(world: World, direction: Direction, rows: BatchRows) -> list[int]:
    return world.asking(direction, rows.images if direction == "i2t" else rows.captions)


def met_in_the_batch(world: World, direction: Direction, meeting: Meeting) -> set[int]:
    return set(world.content(direction, meeting.captions if direction == "i2t" else meeting.images))


@IN_TMP
@given(seed=SEEDS, each=st.booleans(), share=st.sampled_from([0.0, 0.5, 1.0]), easy=st.integers(0, 6), candidates=st.integers(1, 6))
def test_each_query_meets_its_best_candidates_that_are_held_and_not_met_already(
    tmp_path: Path, seed: int, each: bool, share: float, easy: int, candidates: int
) -> None:
    """In the teacher's order with their scores, then holes; no positive, nothing of the batch, nothing of the easy items."""
    world, meeting = random_world(seed, each=each), in_batch(random_batch(seed))
    for direction in DIRECTIONS:
        bank = bank_of(world, direction, tmp_path, seed, share)
        items = draw_of(world, candidates=candidates, easy=easy).items(direction, bank, meeting, 2)
        held, batch = set(np.flatnonzero(bank.held()).tolist()), met_in_the_batch(world, direction, meeting)
        chosen = items.easy.tolist()
        assert chosen == sorted(set(chosen))
        assert set(chosen) <= held - batch
        assert len(chosen) == min(easy, len(held - batch))
        for place, query in enumerate(queries_of(world, direction, meeting.rows)):
            best = [item for item in world.candidates(direction, query) if item in held - batch - set(chosen)][:candidates]
            holes = candidates - len(best)
            assert items.own[place].tolist() == best + [-1] * holes
            scores = [world.said[direction][query, item][0] for item in best]
            np.testing.assert_array_equal(items.scores_QK[place], np.array(scores + [np.nan] * holes, dtype=np.float32))


def test_easy_items_are_drawn_evenly(tmp_path: Path) -> None:
    """Three of all that is held and not in the batch: of 1,500 steps each content has its equal share."""
    world, meeting = random_world(3), in_batch(random_batch(3))
    bank, draw = bank_of(world, "i2t", tmp_path, 3, 1.0), draw_of(world, easy=3)
    free = set(np.flatnonzero(bank.held()).tolist()) - met_in_the_batch(world, "i2t", meeting)
    counts = Counter(item for step in range(1500) for item in draw.items("i2t", bank, meeting, step).easy.tolist())
    assert set(counts) == free
    expected = 1500 * 3 / len(free)
    assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5


def test_easy_items_are_a_function_of_seed_and_step(tmp_path: Path) -> None:
    """A fresh object draws the same; the seed and the step matter, and so does who asks where both banks hold the same rows."""
    world, meeting = random_world(5), in_batch(random_batch(5))
    bank = bank_of(world, "i2t", tmp_path, 5, 1.0)

    def drawn(seed: int, step: int, easy: int = 3) -> tuple[int, ...]:
        return tuple(draw_of(world, easy=easy, seed=seed).items("i2t", bank, meeting, step).easy.tolist())

    assert drawn(0, 0) == drawn(0, 0)
    assert len({drawn(0, step) for step in range(6)}) > 1
    assert len({drawn(seed, 0) for seed in range(6)}) > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_those_of_the_items_and_zeros_in_the_holes(tmp_path: Path, dtype: torch.dtype) -> None:
    """In the loss's number type, with no more digits than float16 kept."""
    world, meeting = random_world(9), in_batch(random_batch(9, size=3))
    bank = bank_of(world, "i2t", tmp_path, 9, 0.8)
    items = draw_of(world, candidates=4, easy=2).items("i2t", bank, meeting, 0)
    features = bank_features(bank, items, torch.device("cpu"), dtype)
    assert (features.easy_ED.dtype, features.own_QKD.dtype) == (dtype, dtype)
    torch.testing.assert_close(features.easy_ED, bank.take(items.easy).to(dtype), rtol=0, atol=0)
    assert (items.own == -1).any()
    assert (items.own >= 0).any()
    for place, found in np.ndenumerate(items.own):
        expected = torch.zeros(WIDTH) if found == -1 else bank.take(np.array([found]))[0]
        torch.testing.assert_close(features.own_QKD[place], expected.to(dtype), rtol=0, atol=0)


def settings_of(**values: Any) -> DistillSettings:
    return DistillSettings.model_validate({"rankings": ("r",), "items": "bank", **values})


@IN_TMP
@given(seed=SEEDS, each=st.booleans())
def test_the_columns_of_similarities_and_lists_are_the_same_items(tmp_path: Path, seed: int, each: bool) -> None:
    """The cosine of each listed column is that of the query with the content whose score stands there, banked ones in float16."""
    world, rows = random_world(seed, each=each), random_batch(seed)
    told, meeting = world.knowledge, in_batch(rows)
    chosen = settings_of(cprd={"easy_negatives": "bank"}, bank={"candidates": 3, "easy": 2})
    # Every content has one vector, in the batch as in the bank.
    of_image, of_caption = vectors(IMAGES, seed)[told.canonical_image], vectors(CAPTIONS, seed + 1)[told.canonical_caption]
    banks = Banks(chosen, told, world.positives, tmp_path)
    everything = Meeting(rows, np.arange(IMAGES), np.arange(CAPTIONS))
    banks.put(everything, of_image, of_caption, 0)
    items = banks.items(meeting, 1)
    features = banks.features(items, torch.device("cpu"), torch.float64)
    found = compare(of_image[rows.images], of_caption[rows.captions], len(rows.images), features)
    lists = Listing(chosen, told, world.positives).of(meeting, 1, items)
    sides = {"i2t": (of_image[rows.images], of_caption), "t2i": (of_caption[rows.captions], of_image)}
    for direction, similarities, listed, banked in zip(DIRECTIONS, found, (lists.i2t, lists.t2i), items, strict=True):
        queries_QD, items_ID = sides[direction]
        contents = world.content(direction, rows.captions if direction == "i2t" else rows.images)
        assert listed is not None
        assert similarities.shape == listed.listed_QN.shape
        for place, query in enumerate(queries_of(world, direction, rows)):
            columns = [*contents, *banked.easy.tolist(), *banked.own[place].tolist()]
            for column, item in enumerate(columns):
                if item == -1:
                    assert not listed.listed_QN[place, column] | listed.easy_QN[place, column]
                    continue
                cosine = float(queries_QD[place] @ items_ID[item])
                tolerance = 0 if column < len(contents) else 2e-3
                assert float(similarities[place, column]) == pytest.approx(cosine, abs=tolerance + 1e-12)
                if listed.listed_QN[place, column]:
                    assert float(listed.teacher_QN[place, column]) == world.said[direction][query, item][0]


def test_a_query_learns_from_banked_features_which_do_not(tmp_path: Path) -> None:
    """The gradient of similarities with the bank reaches the batch's vectors alone."""
    world, meeting = random_world(2), in_batch(random_batch(2))
    banks = Banks(settings_of(), world.knowledge, world.positives, tmp_path)
    banks.put(Meeting(meeting.rows, np.arange(IMAGES), np.arange(CAPTIONS)), vectors(IMAGES, 0), vectors(CAPTIONS, 1), 0)
    features = banks.features(banks.items(meeting, 1), torch.device("cpu"), torch.float64)
    assert features is not None
    images, captions = vectors(6, 2).requires_grad_(), vectors(6, 3).requires_grad_()
    compare(images, captions, 6, features).i2t[:, 6:].sum().backward()
    torch.testing.assert_close(images.grad, features[0].own_QKD.sum(1) + features[0].easy_ED.sum(0), rtol=1e-12, atol=1e-12)
    assert captions.grad is None or not captions.grad.any()
    assert not features[0].own_QKD.requires_grad | features[0].easy_ED.requires_grad


def test_banks_are_empty_until_the_first_step_is_kept(tmp_path: Path) -> None:
    """There are no features to compare with, and the log says that no query had a candidate."""
    world, meeting = random_world(2), in_batch(random_batch(2))
    banks = Banks(settings_of(), world.knowledge, world.positives, tmp_path)
    items = banks.items(meeting, 0)
    assert banks.features(items, torch.device("cpu"), torch.float32) is None
    assert banks.staleness(items, 0) == {"bank_age": 0.0, "bank_candidates": 0.0}


def test_the_log_says_how_old_the_candidates_are(tmp_path: Path) -> None:
    """The mean over all candidates of both directions, each as old as the step that last encoded it."""
    world, meeting = random_world(6), in_batch(random_batch(6))
    banks = Banks(settings_of(), world.knowledge, world.positives, tmp_path)
    steps = {"images": np.zeros(IMAGES), "captions": np.zeros(CAPTIONS)}
    for step, (images, captions) in enumerate([(range(IMAGES), range(CAPTIONS)), (range(5), range(9))]):
        part = Meeting(meeting.rows, np.array(images), np.array(captions))
        banks.put(part, vectors(len(images), step), vectors(len(captions), step), step)
        steps["images"][world.knowledge.canonical_image[part.images]] = step
        steps["captions"][world.knowledge.canonical_caption[part.captions]] = step
    items = banks.items(meeting, 7)
    ages = [7 - steps[side][row] for side, one in zip(("captions", "images"), items, strict=True) for row in one.own[one.own >= 0]]
    found = banks.staleness(items, 7)
    assert len(set(ages)) == 2
    assert found["bank_age"] == pytest.approx(np.mean(ages))
    assert found["bank_candidates"] == pytest.approx(len(ages) / 12)


@pytest.mark.parametrize("easy_negatives", ["bank", "in_batch", "none"])
def test_random_items_join_only_where_easy_negatives_come_from_the_bank(tmp_path: Path, easy_negatives: str) -> None:
    """By the setting of the objective; otherwise a query meets its candidates alone."""
    world, meeting = random_world(8), in_batch(random_batch(8))
    chosen = settings_of(objective="kl", kl={"easy_negatives": easy_negatives}, bank={"easy": 2})
    banks = Banks(chosen, world.knowledge, world.positives, tmp_path)
    banks.put(Meeting(meeting.rows, np.arange(IMAGES), np.arange(CAPTIONS)), vectors(IMAGES, 0), vectors(CAPTIONS, 1), 0)
    assert [len(one.easy) for one in banks.items(meeting, 1)] == [2 * (easy_negatives == "bank")] * 2


def test_both_banks_go_on_where_a_checkpoint_left_them(tmp_path: Path) -> None:
    """The same items with the same features and ages."""
    world, meeting = random_world(1), in_batch(random_batch(1))
    first, second = (Banks(settings_of(), world.knowledge, world.positives, tmp_path / name) for name in "ab")
    first.put(Meeting(meeting.rows, np.arange(0, IMAGES, 2), np.arange(CAPTIONS)), vectors(7, 0), vectors(CAPTIONS, 1), 4)
    second.load(first.state())
    items = [banks.items(meeting, 9) for banks in (first, second)]
    features = [banks.features(of, torch.device("cpu"), torch.float64) for banks, of in zip((first, second), items, strict=True)]
    assert features[0] is not None
    assert features[1] is not None
    for side in range(2):
        np.testing.assert_array_equal(items[0][side].own, items[1][side].own)
        torch.testing.assert_close(features[0][side].own_QKD, features[1][side].own_QKD, rtol=0, atol=0)
    assert first.staleness(items[0], 9) == second.staleness(items[1], 9)
