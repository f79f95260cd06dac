"""Random knowledge for the tests of the objectives, and a check of a fast loss against a slow one."""

from collections.abc import Callable

import torch

from cprd_pipeline.distillation.losses.lists import TeacherLists

TEMPERATURES = [1.0, 0.07, 0.01, 0.005]

Loss = Callable[[torch.Tensor, TeacherLists], torch.Tensor]


def random_lists(seed: int, queries: int = 6, items: int = 9) -> TeacherLists:
    """Random knowledge with ties.

    Rows 0 to 5 have: no list, all listed items valid, none valid and no positive in the list, no easy negatives, the positive
    alone in the list, and all items listed of which one is valid.
    """
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(queries, items, generator=generator).mul(3).round(decimals=1)
    listed = torch.rand(queries, items, generator=generator) < 0.6
    listed |= torch.eye(queries, items, dtype=torch.bool)
    listed[2, 2] = False
    listed[0] = False
    listed[4] = torch.eye(queries, items, dtype=torch.bool)[4]
    listed[5] = True
    valid = listed & (torch.rand(queries, items, generator=generator) < 0.7)
    valid[1] = listed[1]
    valid[2] = False
    valid[5] = teacher[5] == teacher[5].max()
    valid[5, teacher[5].argmax() + 1 :] = False
    easy = ~listed & (torch.rand(queries, items, generator=generator) < 0.8)
    easy[3] = False
    return TeacherLists(teacher, listed, valid, easy)


def random_similarities(seed: int, queries: int = 6, items: int = 9) -> torch.Tensor:
    """Cosines in [-1, 1], float64."""
    generator = torch.Generator().manual_seed(seed + 99)
    return torch.rand(queries, items, dtype=torch.float64, generator=generator) * 2 - 1


def listed_columns(lists: TeacherLists, query: int) -> list[int]:
    """Columns of the listed items of a query."""
    return [column for column in range(lists.listed_QN.shape[1]) if lists.listed_QN[query, column]]


def rows_of(lists: TeacherLists, rows: list[int]) -> TeacherLists:
    """The lists of some queries."""
    return TeacherLists(lists.teacher_QN[rows], lists.listed_QN[rows], lists.valid_QN[rows], lists.easy_QN[rows])


def assert_same(fast: Loss, slow: Loss, temperature: float, lists: TeacherLists, similarities: torch.Tensor) -> None:
    """Two losses agree in value and gradient, relative to the largest entry of the gradient."""
    results = []
    for loss in (fast, slow):
        leaf = similarities.clone().requires_grad_()
        value = loss(leaf / temperature, lists)
        value.backward()
        results.append((value.detach(), leaf.grad))
    (fast_value, fast_gradient), (slow_value, slow_gradient) = results
    torch.testing.assert_close(fast_value, slow_value, rtol=1e-12, atol=1e-12)
    largest = float(slow_gradient.abs().max())
    assert largest > 0
    torch.testing.assert_close(fast_gradient, slow_gradient, rtol=1e-11, atol=1e-12 * largest)
