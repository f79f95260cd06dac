"""The control keeps everything but the teacher's order, and depends on seed, step and pair alone."""

from collections import Counter

import numpy as np
import pytest
import torch

from cprd_pipeline.distillation.losses.lists import TeacherLists, own_items
from cprd_pipeline.distillation.losses.shuffle import shuffle_keys, shuffle_teacher
from tests.distillation.loss_cases import random_lists

QUERIES, ITEMS = np.arange(6) * 10, np.tile(np.arange(9) * 7, (6, 1))


@pytest.mark.parametrize("seed", range(5))
def test_scores_and_validity_are_dealt_anew_among_the_candidates(seed: int) -> None:
    """Each query keeps its set of (score, valid) pairs; what is no candidate, and the positive, keeps its own."""
    lists = random_lists(seed)
    shuffled = shuffle_teacher(lists, shuffle_keys(0, 0, 0, QUERIES, ITEMS))
    candidates = lists.listed_QN & ~own_items(lists)
    assert torch.equal(shuffled.listed_QN, lists.listed_QN)
    assert torch.equal(shuffled.easy_QN, lists.easy_QN)
    for before, after in ((lists.teacher_QN, shuffled.teacher_QN), (lists.valid_QN, shuffled.valid_QN)):
        assert torch.equal(before[~candidates], after[~candidates])
    for query in range(6):
        columns = candidates[query]
        dealt = [
            Counter(zip(some.teacher_QN[query, columns].tolist(), some.valid_QN[query, columns].tolist(), strict=True))
            for some in (lists, shuffled)
        ]
        assert dealt[0] == dealt[1]
    assert not torch.equal(shuffled.teacher_QN, lists.teacher_QN)


@pytest.mark.parametrize("change", [{"seed": 1}, {"step": 1}, {"direction": 1}])
def test_another_seed_step_or_direction_deals_differently(change: dict[str, int]) -> None:
    """All three are part of the key; the same ones give the same key again."""
    same = {"seed": 0, "step": 0, "direction": 0}
    keys = [shuffle_keys(**values, queries=QUERIES, items_QN=ITEMS) for values in (same, dict(same), same | change)]
    assert torch.equal(keys[0], keys[1])
    assert not (keys[0] == keys[2]).any()


def test_the_deal_of_a_query_does_not_depend_on_its_place_in_the_batch() -> None:
    """Items and queries in another order give the same numbers for the same pairs, as on several processes."""
    keys = shuffle_keys(3, 5, 1, QUERIES, ITEMS)
    turned = shuffle_keys(3, 5, 1, QUERIES[[4, 2]], ITEMS[:2, ::-1].copy())
    assert torch.equal(turned, keys[[4, 2]].flip(1))


def test_every_order_is_as_likely_as_any_other() -> None:
    """Over 6,000 steps each of the 24 orders of four candidates comes about 250 times (five deviations at most)."""
    listed = torch.ones(1, 5, dtype=torch.bool)
    lists = TeacherLists(torch.arange(5.0)[None], listed, listed, ~listed)
    orders: Counter[tuple[float, ...]] = Counter()
    for step in range(6000):
        keys = shuffle_keys(0, step, 0, np.array([12]), np.arange(5)[None])
        orders[tuple(shuffle_teacher(lists, keys).teacher_QN[0].tolist())] += 1
    assert {order[0] for order in orders} == {0.0}  # the positive
    assert len(orders) == 24
    assert max(abs(count - 250) for count in orders.values()) < 5 * 250**0.5
