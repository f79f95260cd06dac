"""Each objective against a slow loop that follows the formula literally, in value and gradient."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.distillation.losses.cprd import cprd_loss
from cprd_pipeline.distillation.losses.kl import kl_loss
from cprd_pipeline.distillation.losses.lists import TeacherLists
from tests.distillation.loss_cases import TEMPERATURES, random_lists, rows_of


def ranking_of(lists: TeacherLists, query: int) -> list[int]:
    """Columns of one query in ranking order, written out: valid ones by score, then the other listed ones by score."""
    columns = range(lists.teacher_QN.shape[1])
    listed = [j for j in columns if lists.listed_QN[query, j]]
    return sorted(listed, key=lambda j: (not lists.valid_QN[query, j], -float(lists.teacher_QN[query, j]), j))


def slow_cprd(logits: torch.Tensor, lists: TeacherLists, weights: str, temperature: float) -> torch.Tensor:
    """DESIGN section 5 as a triple loop."""
    total = logits.new_zeros(())
    for i in range(len(logits)):
        order = ranking_of(lists, i)
        easy = [e for e in range(logits.shape[1]) if lists.easy_QN[i, e]]
        valid = [j for j in order if lists.valid_QN[i, j]]
        mass = sum(math.exp(float(lists.teacher_QN[i, j]) / temperature) for j in order)
        for rank, j in enumerate(order):
            if j not in valid:
                continue
            share = math.exp(float(lists.teacher_QN[i, j]) / temperature) / mass
            weight = {"hard": 1 / len(order), "normalised": 1 / len(valid), "soft": share}[weights]
            below = torch.stack([logits[i, k] for k in order[rank:] + easy])
            total = total - weight * (logits[i, j] - torch.logsumexp(below, 0))
    return total / len(logits)


@pytest.mark.parametrize("weights", ["hard", "normalised", "soft"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("seed", range(4))
def test_cprd_equals_the_triple_loop(weights: str, temperature: float, seed: int) -> None:
    """Value and gradient in float64, at temperatures down to 0.005, with n_valid of 0, 1 and all."""
    lists = random_lists(seed)
    similarities = (
        torch.rand(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 99)) * 2 - 1
    ).requires_grad_()
    fast = cprd_loss(similarities / temperature, lists, weights, 2.0)  # type: ignore[arg-type]
    (fast_gradient,) = torch.autograd.grad(fast, similarities)
    slow = slow_cprd(similarities / temperature, lists, weights, 2.0)
    (slow_gradient,) = torch.autograd.grad(slow, similarities)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fast_gradient, slow_gradient, rtol=1e-12, atol=1e-12 / temperature)


def test_cprd_in_float32_keeps_seven_digits() -> None:
    """float32 at temperature 0.005 differs from float64 by rounding alone, and its gradient is finite."""
    lists = random_lists(5)
    exact = torch.rand(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    single = exact.float().requires_grad_()
    loss = cprd_loss(single / 0.005, lists, "hard", 1.0)
    loss.backward()
    assert torch.isfinite(single.grad).all()
    assert float(loss.detach()) == pytest.approx(float(slow_cprd(exact / 0.005, lists, "hard", 1.0)), rel=2e-6)


def test_cprd_of_a_query_without_valid_items_adds_nothing_but_counts() -> None:
    """Q counts the queries of the batch, also those with n_valid 0, so that many processes equal one."""
    lists = random_lists(3)
    logits = torch.randn(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    all_rows = cprd_loss(logits, lists, "hard", 1.0)
    kept = [0, 1, 3, 4, 5]  # row 2 has no valid item
    rest = rows_of(lists, kept)
    assert float(cprd_loss(logits[kept], rest, "hard", 1.0)) * 5 / 6 == pytest.approx(float(all_rows), rel=1e-12)


def test_cprd_prefers_the_teachers_order() -> None:
    """Swapping two valid items against the teacher's order raises the loss; the same swap below the prefix does not."""
    teacher = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    everything = torch.ones(1, 4, dtype=torch.bool)
    valid = torch.tensor([[True, True, False, False]])
    lists = TeacherLists(teacher, everything, valid, ~everything)
    agreeing = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    swapped_valid, swapped_rest = agreeing[:, [1, 0, 2, 3]], agreeing[:, [0, 1, 3, 2]]
    loss = float(cprd_loss(agreeing, lists, "hard", 1.0))
    assert float(cprd_loss(swapped_valid, lists, "hard", 1.0)) > loss + 0.01
    assert float(cprd_loss(swapped_rest, lists, "hard", 1.0)) == pytest.approx(loss, rel=1e-6)


def test_cprd_ranks_a_low_positive_last_of_the_valid_prefix() -> None:
    """A valid item that the teacher puts below invalid ones is compared with those, not with the valid ones above it."""
    teacher = torch.tensor([[5.0, 4.0, 3.0, -2.0]])  # column 3 is the positive, below the invalid columns 1 and 2
    everything = torch.ones(1, 4, dtype=torch.bool)
    valid = torch.tensor([[True, False, False, True]])
    logits = torch.tensor([[0.3, -0.2, 0.5, 0.1]], dtype=torch.float64)
    expected = -(logits[0, 0] - torch.logsumexp(logits[0], 0)) - (logits[0, 3] - torch.logsumexp(logits[0, [3, 1, 2]], 0))
    loss = cprd_loss(logits, TeacherLists(teacher, everything, valid, ~everything), "normalised", 1.0)
    assert float(loss) == pytest.approx(float(expected) / 2, rel=1e-12)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-50, 50))
def test_cprd_ignores_a_constant_added_to_a_query(seed: int, shift: float) -> None:
    """Only differences of similarities matter, as in any softmax."""
    lists = random_lists(seed)
    logits = torch.randn(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    once, again = (cprd_loss(z, lists, "normalised", 1.0) for z in (logits, logits + shift))
    assert float(once) == pytest.approx(float(again), rel=1e-9, abs=1e-9)


def slow_kl(logits: torch.Tensor, lists: TeacherLists, temperature: float) -> torch.Tensor:
    total = logits.new_zeros(())
    for i in range(len(logits)):
        listed = [j for j in range(logits.shape[1]) if lists.listed_QN[i, j]]
        seen = listed + [e for e in range(logits.shape[1]) if lists.easy_QN[i, e]]
        if not listed:
            continue
        target = torch.softmax(lists.teacher_QN[i, listed].double() / temperature, 0)
        student = logits[i, listed] - torch.logsumexp(logits[i, seen], 0)
        total = total + (target * (target.log() - student)).sum()
    return total / len(logits)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 10.0])
@pytest.mark.parametrize("seed", range(4))
def test_kl_equals_the_double_loop(temperature: float, seed: int) -> None:
    """Value and gradient; easy negatives are in the student's sum only; a query without a list adds nothing."""
    lists = random_lists(seed)
    logits = torch.randn(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    fast, slow = kl_loss(logits, lists, temperature), slow_kl(logits, lists, temperature)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (fast, slow)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)


def test_kl_has_no_gradient_where_student_and_teacher_agree() -> None:
    """With the teacher's own logits and no easy negatives the divergence and its gradient are zero."""
    lists = random_lists(1)
    nothing = torch.zeros_like(lists.easy_QN)
    lists = TeacherLists(lists.teacher_QN, lists.listed_QN, lists.valid_QN, nothing)
    logits = (lists.teacher_QN.double() / 2.0).requires_grad_()
    loss = kl_loss(logits, lists, 2.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-12)
    assert float(logits.grad.abs().max()) < 1e-12
