"""The rivals of CPRD against slow loops that follow their papers' formulas, in value and gradient."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.distillation.losses.cprd import cprd_loss
from cprd_pipeline.distillation.losses.kl import kl_loss
from cprd_pipeline.distillation.losses.listmle import listmle_loss
from cprd_pipeline.distillation.losses.listnet import listnet_loss
from cprd_pipeline.distillation.losses.lists import TeacherLists
from cprd_pipeline.distillation.losses.margin_mse import margin_mse_loss
from cprd_pipeline.distillation.losses.ranknet import ranknet_loss
from cprd_pipeline.distillation.losses.standardise import standardise_both
from tests.distillation.loss_cases import (
    TEMPERATURES,
    Loss,
    assert_same,
    listed_columns,
    random_lists,
    random_similarities,
    rows_of,
)


def slow_margin_mse(logits: torch.Tensor, lists: TeacherLists) -> torch.Tensor:
    total = logits.new_zeros(())
    for i in range(len(logits)):
        candidates = [j for j in listed_columns(lists, i) if j != i]
        if not lists.listed_QN[i, i] or not candidates:
            continue
        teacher = [float(score) / 2.0 for score in lists.teacher_QN[i].double()]
        margins = [(logits[i, i] - logits[i, j]) - (teacher[i] - teacher[j]) for j in candidates]
        total = total + torch.stack(margins).square().mean()
    return total / len(logits)


def slow_listnet(logits: torch.Tensor, lists: TeacherLists) -> torch.Tensor:
    total = logits.new_zeros(())
    for i in range(len(logits)):
        columns = listed_columns(lists, i)
        mass = sum(math.exp(float(lists.teacher_QN[i, j]) / 2.0) for j in columns)
        for j in columns:
            share = math.exp(float(lists.teacher_QN[i, j]) / 2.0) / mass
            total = total - share * (logits[i, j] - torch.logsumexp(logits[i, columns], 0))
    return total / len(logits)


def slow_listmle(logits: torch.Tensor, lists: TeacherLists) -> torch.Tensor:
    total = logits.new_zeros(())
    for i in range(len(logits)):
        order = sorted(listed_columns(lists, i), key=lambda j: (-float(lists.teacher_QN[i, j]), j))
        for rank, j in enumerate(order):
            total = total - (logits[i, j] - torch.logsumexp(logits[i, order[rank:]], 0)) / len(order)
    return total / len(logits)


def slow_ranknet(logits: torch.Tensor, lists: TeacherLists, by_difference: bool) -> torch.Tensor:
    total = logits.new_zeros(())
    for i in range(len(logits)):
        terms, weights = [], []
        for better in listed_columns(lists, i):
            for worse in listed_columns(lists, i):
                gap = float(lists.teacher_QN[i, better].double() - lists.teacher_QN[i, worse].double())
                if gap > 0:
                    terms.append(torch.logaddexp(logits.new_zeros(()), logits[i, worse] - logits[i, better]))
                    weights.append(gap if by_difference else 1.0)
        if terms:
            total = total + (torch.stack(terms) * torch.tensor(weights, dtype=logits.dtype)).sum() / sum(weights)
    return total / len(logits)


def slow_standardised(logits: torch.Tensor, lists: TeacherLists) -> tuple[torch.Tensor, TeacherLists]:
    students, teachers = [], []
    for i in range(len(logits)):
        listed = listed_columns(lists, i)
        seen = listed + [e for e in range(logits.shape[1]) if lists.easy_QN[i, e]]
        for values, columns, rows in ((logits[i], seen, students), (lists.teacher_QN[i].double(), listed, teachers)):
            row = torch.zeros_like(values)
            if columns:
                chosen = values[columns]
                spread = torch.sqrt(((chosen - chosen.mean()) ** 2).mean() + 1e-4)
                row = row.index_put((torch.tensor(columns),), (chosen - chosen.mean()) / spread)
            rows.append(row)
    return torch.stack(students), TeacherLists(torch.stack(teachers), lists.listed_QN, lists.valid_QN, lists.easy_QN)


FAST: dict[str, Loss] = {
    "margin_mse": lambda logits, lists: margin_mse_loss(logits, lists, 2.0),
    "margin_mse standardised": lambda logits, lists: margin_mse_loss(*standardise_both(logits, lists), 2.0),
    "kl standardised": lambda logits, lists: kl_loss(*standardise_both(logits, lists), 2.0),
    "listnet": lambda logits, lists: listnet_loss(logits, lists, 2.0),
    "listmle": listmle_loss,
    "ranknet": lambda logits, lists: ranknet_loss(logits, lists, "equal"),
    "ranknet difference": lambda logits, lists: ranknet_loss(logits, lists, "difference"),
    "cprd": lambda logits, lists: cprd_loss(logits, lists, "soft", 2.0),
    "kl": lambda logits, lists: kl_loss(logits, lists, 2.0),
}
SLOW: dict[str, Loss] = {
    "margin_mse": slow_margin_mse,
    "margin_mse standardised": lambda logits, lists: slow_margin_mse(*slow_standardised(logits, lists)),
    # Whether KL itself is right is asked in test_losses.py.
    "kl standardised": lambda logits, lists: kl_loss(*slow_standardised(logits, lists), 2.0),
    "listnet": slow_listnet,
    "listmle": slow_listmle,
    "ranknet": lambda logits, lists: slow_ranknet(logits, lists, by_difference=False),
    "ranknet difference": lambda logits, lists: slow_ranknet(logits, lists, by_difference=True),
}
every_loss = pytest.mark.parametrize("name", FAST)


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("seed", range(3))
def test_a_rival_equals_its_slow_loop(name: str, temperature: float, seed: int) -> None:
    """Value and gradient in float64, at temperatures down to 0.005, with lists of no, one and all items."""
    lists = random_lists(seed)
    assert_same(FAST[name], SLOW[name], temperature, lists, random_similarities(seed))


@every_loss
def test_in_float32_only_rounding_is_lost(name: str) -> None:
    """Value and gradient at temperature 0.005 stay close to float64 and finite."""
    lists, exact = random_lists(5), random_similarities(5)
    results = []
    for similarities in (exact, exact.float()):
        leaf = similarities.clone().requires_grad_()
        loss = FAST[name](leaf / 0.005, lists)
        loss.backward()
        assert torch.isfinite(leaf.grad).all()
        results.append((float(loss.detach()), leaf.grad.double()))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
    # The roundings of cosines of up to 1 are multiplied by 200 before a softmax sees them.
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-3, atol=1e-4 * float(results[0][1].abs().max()))


@every_loss
def test_a_batch_without_any_list_gives_zero(name: str) -> None:
    """Value and gradient are zero, not NaN."""
    nothing = torch.zeros(4, 5, dtype=torch.bool)
    lists = TeacherLists(torch.zeros(4, 5), nothing, nothing, nothing)
    leaf = random_similarities(0, 4, 5).requires_grad_()
    loss = FAST[name](leaf / 0.005, lists)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(leaf.grad.abs().max()) == 0.0


@every_loss
def test_equal_similarities_give_a_finite_gradient(name: str) -> None:
    """A collapsed student, whose lists have no spread, is no reason for NaN."""
    leaf = torch.zeros(6, 9, dtype=torch.float32, requires_grad=True)
    FAST[name](leaf / 0.005, random_lists(2)).backward()
    assert torch.isfinite(leaf.grad).all()
    assert float(leaf.grad.abs().max()) > 0


@every_loss
def test_a_query_without_a_list_adds_nothing_but_counts(name: str) -> None:
    """The mean is over all queries of the batch."""
    lists, logits = random_lists(3), random_similarities(3) / 0.07
    empty_last = rows_of(lists, [0, 1, 2, 3, 4, 5, 0])  # row 0 has no list
    longer = torch.cat([logits, logits[:1]])
    assert float(FAST[name](longer, empty_last)) * 7 / 6 == pytest.approx(float(FAST[name](logits, lists)), rel=1e-12)


@every_loss
@settings(deadline=None)
@given(seed=st.integers(0, 10_000), filler=st.sampled_from([-1e4, 0.0, 3.0, 1e4]))
def test_what_is_not_listed_is_never_read(name: str, seed: int, filler: float) -> None:
    """Teacher scores of unlisted pairs, logits of pairs that take no part, and padding columns change nothing."""
    lists, logits = random_lists(seed), random_similarities(seed) / 0.01
    idle = ~(lists.listed_QN | lists.easy_QN)
    nothing = torch.zeros(6, 3, dtype=torch.bool)
    padded = TeacherLists(
        torch.cat([lists.teacher_QN.masked_fill(~lists.listed_QN, filler), torch.full((6, 3), filler)], 1),
        *(torch.cat([mask, nothing], 1) for mask in (lists.listed_QN, lists.valid_QN, lists.easy_QN)),
    )
    changed = torch.cat([logits.masked_fill(idle, filler), torch.full((6, 3), -filler, dtype=torch.float64)], 1)
    assert float(FAST[name](changed, padded)) == pytest.approx(float(FAST[name](logits, lists)), rel=1e-12, abs=1e-12)


@every_loss
def test_the_teachers_order_is_preferred(name: str) -> None:
    """A student that agrees with the teacher has a lower loss than one that says the opposite."""
    everything = torch.ones(1, 4, dtype=torch.bool)
    lists = TeacherLists(torch.tensor([[4.0, 3.0, 2.0, 1.0]]), everything, everything, ~everything)
    agreeing, opposed = torch.tensor([[2.0, 1.5, 1.0, 0.5]]), torch.tensor([[0.5, 1.0, 1.5, 2.0]])
    assert float(FAST[name](agreeing, lists)) < float(FAST[name](opposed, lists)) - 0.1


@pytest.mark.parametrize("loss", [margin_mse_loss, kl_loss, listnet_loss])
@pytest.mark.parametrize("standardised", [False, True])
def test_agreement_leaves_nothing_to_learn(loss: Callable[..., torch.Tensor], standardised: bool) -> None:
    """With the teacher's own differences the gradient is zero; standardised, at any spread of them."""
    lists = random_lists(1)
    lists = TeacherLists(lists.teacher_QN.double(), lists.listed_QN, lists.valid_QN, torch.zeros_like(lists.easy_QN))
    leaf = (lists.teacher_QN * (20.0 if standardised else 0.5) + 5.0).requires_grad_()
    logits, known = leaf, lists
    if standardised:
        logits, known = standardise_both(leaf, lists)
        logits = logits / 2.0
    loss(logits, known, 2.0).backward()
    assert float(leaf.grad.abs().max()) < (1e-6 if standardised else 1e-12)  # the floor of the variance shows


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-20, 20), spread=st.floats(0.2, 5))
def test_standardised_lists_know_no_offset_and_no_spread(seed: int, shift: float, spread: float) -> None:
    """Teacher scores may be moved and stretched per query; below the floor of the variance alone it shows."""
    lists, logits = random_lists(seed), random_similarities(seed) / 0.01
    moved = TeacherLists(lists.teacher_QN.double() * spread + shift, lists.listed_QN, lists.valid_QN, lists.easy_QN)
    once, again = (kl_loss(*standardise_both(logits, knowledge), 1.0) for knowledge in (lists, moved))
    assert float(once) == pytest.approx(float(again), rel=2e-2, abs=1e-4)


def test_listmle_is_cprd_with_everything_valid_and_no_easy_negatives() -> None:
    """The difference between the two is what CPRD adds: a valid prefix, easy negatives, weights."""
    lists, logits = random_lists(4), random_similarities(4) / 0.07
    plain = TeacherLists(lists.teacher_QN, lists.listed_QN, lists.listed_QN, torch.zeros_like(lists.easy_QN))
    assert float(listmle_loss(logits, lists)) == pytest.approx(float(cprd_loss(logits, plain, "hard", 1.0)), rel=1e-12)


def test_listnet_has_the_gradient_of_kl_without_easy_negatives() -> None:
    """The two values differ by the teacher's entropy, which no student can change."""
    lists = random_lists(4)
    plain = TeacherLists(lists.teacher_QN, lists.listed_QN, lists.valid_QN, torch.zeros_like(lists.easy_QN))
    logits = random_similarities(4).requires_grad_()
    gradients = [torch.autograd.grad(loss(logits, plain, 2.0), logits)[0] for loss in (listnet_loss, kl_loss)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-14)


def test_ranknet_makes_no_pair_of_equal_scores() -> None:
    """Of three items with two equal scores two pairs remain."""
    everything = torch.ones(1, 3, dtype=torch.bool)
    lists = TeacherLists(torch.tensor([[1.0, 1.0, 0.0]]), everything, everything, ~everything)
    logits = torch.tensor([[0.3, -5.0, 0.1]], dtype=torch.float64)
    expected = (math.log1p(math.exp(-0.2)) + math.log1p(math.exp(5.1))) / 2
    assert float(ranknet_loss(logits, lists, "equal")) == pytest.approx(expected, rel=1e-12)
