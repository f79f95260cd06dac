"""The contrastive losses against slow loops, in value and gradient, and what they must never push apart."""

from collections.abc import Callable

import pytest
import torch
from transformers import SiglipConfig, SiglipModel

from cprd_pipeline.distillation.losses.itc import itc_loss
from cprd_pipeline.distillation.losses.sigmoid import sigmoid_loss
from tests.distillation.loss_cases import TEMPERATURES, random_similarities

Contrastive = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def slow_itc(logits: torch.Tensor, excluded: torch.Tensor) -> torch.Tensor:
    total = logits.new_zeros(())
    for i in range(len(logits)):
        allowed = [j for j in range(logits.shape[1]) if j == i or not excluded[i, j]]
        total = total - (logits[i, i] - torch.logsumexp(logits[i, allowed], 0))
    return total / len(logits)


def slow_sigmoid(logits: torch.Tensor, excluded: torch.Tensor) -> torch.Tensor:
    total, zero = logits.new_zeros(()), logits.new_zeros(())
    for i in range(len(logits)):
        total = total + torch.logaddexp(zero, -logits[i, i])
        for j in range(logits.shape[1]):
            if j != i and not excluded[i, j]:
                total = total + torch.logaddexp(zero, logits[i, j])
    return total / len(logits)


both = pytest.mark.parametrize(("fast", "slow"), [(itc_loss, slow_itc), (sigmoid_loss, slow_sigmoid)])


def excluded_pairs(queries: int, items: int) -> torch.Tensor:
    """Some pairs, and every query's own item, as the annotations say."""
    excluded = torch.rand(queries, items, generator=torch.Generator().manual_seed(0)) < 0.4
    return excluded.fill_diagonal_(True)


@both
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_contrastive_loss_equals_its_slow_loop(fast: Contrastive, slow: Contrastive, temperature: float) -> None:
    """The own item counts although it is a positive; float64, and the bias of a fresh SigLIP."""
    excluded, leaf = excluded_pairs(5, 7), random_similarities(0, 5, 7).requires_grad_()
    values = [loss(leaf / temperature - 10.0, excluded) for loss in (fast, slow)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(value, leaf)[0] for value in values]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-11, atol=1e-13 / temperature)


@both
def test_another_positive_is_never_pushed_away(fast: Contrastive, slow: Contrastive) -> None:
    """An excluded pair gets no gradient, its neighbour gets one."""
    logits = random_similarities(3, 4, 4).requires_grad_()
    excluded = torch.eye(4, dtype=torch.bool)
    excluded[1, 2] = True
    fast(logits, excluded).backward()
    assert float(logits.grad[1, 2]) == 0.0
    assert float(logits.grad[1, 3]) > 0.0


@both
def test_a_query_of_which_everything_is_excluded_has_a_finite_gradient(fast: Contrastive, slow: Contrastive) -> None:
    """Only its own item is left: nothing to tell apart, and no NaN, in float32 at temperature 0.005."""
    logits = (random_similarities(1, 4, 4).float() / 0.005).requires_grad_()
    fast(logits, torch.ones(4, 4, dtype=torch.bool)).backward()
    assert torch.isfinite(logits.grad).all()
    assert float((logits.grad - torch.diag(logits.grad.diag())).abs().max()) == 0.0


def test_the_sigmoid_loss_is_that_of_siglip() -> None:
    """Transformers' own loss of the same batch, which knows one positive a query."""
    torch.manual_seed(0)
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
    vision = {**text, "image_size": 16, "patch_size": 8}
    model = SiglipModel(SiglipConfig(text_config={**text, "projection_size": 16}, vision_config=vision)).eval()
    with torch.no_grad():
        output = model(torch.randint(2, 20, (4, 6)), torch.rand(4, 3, 16, 16), return_loss=True)
    ours = sigmoid_loss(output.logits_per_image, torch.zeros(4, 4, dtype=torch.bool))
    assert float(ours) == pytest.approx(float(output.loss), rel=1e-6)


def test_the_sigmoid_loss_has_one_direction() -> None:
    """Turned around, the same batch gives the same value."""
    logits, excluded = random_similarities(2, 6, 6), excluded_pairs(6, 6)
    assert float(sigmoid_loss(logits, excluded)) == pytest.approx(float(sigmoid_loss(logits.T, excluded.T)), rel=1e-12)
