"""The contrastive losses against slow loops, in value and gradient, and what they must never push apart."""

from collections.abc import Callable

import pytest
import torch
from transformers import SiglipConfig, SiglipModel

from cprd_pipeline.distillation.losses.itc import itc_loss
from cprd_pipeline.distillation.losses.sigmoid import sigmoid_loss
from tests.distillation.loss_cases import TEMPERATURES, random_similarities

Contrastive = Callable[..., torch.Tensor]


def slow_itc(logits: torch.Tensor, excluded: torch.Tensor, paired: torch.Tensor | None = None) -> torch.Tensor:
    total = logits.new_zeros(())
    asking = [i for i in range(len(logits)) if paired is None or paired[i]]
    for i in asking:
        allowed = [j for j in range(logits.shape[1]) if j == i or not excluded[i, j]]
        total = total - (logits[i, i] - torch.logsumexp(logits[i, allowed], 0))
    return total / max(len(asking), 1)


def slow_sigmoid(logits: torch.Tensor, excluded: torch.Tensor, paired: torch.Tensor | None = None) -> torch.Tensor:
    total, zero = logits.new_zeros(()), logits.new_zeros(())
    for i in range(len(logits)):
        if paired is None or paired[i]:
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
@pytest.mark.parametrize("paired", [[True] * 5, [True, False, True, True, False], [False] * 5], ids=["all", "some", "none"])
def test_queries_without_a_positive_have_no_own_term(fast: Contrastive, slow: Contrastive, paired: list[bool]) -> None:
    """Value and gradient of the slow loop; with every query paired, those of the loss that knows of no others."""
    excluded, leaf = excluded_pairs(5, 7), random_similarities(0, 5, 7).requires_grad_()
    values = [loss(leaf / 0.07 - 10.0, excluded, torch.tensor(paired)) for loss in (fast, slow)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=1e-12)
    if any(paired) or fast is sigmoid_loss:
        gradients = [torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in values]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-11, atol=1e-12)
    if all(paired):
        assert float(values[0].detach()) == pytest.approx(float(fast(leaf / 0.07 - 10.0, excluded).detach()), rel=1e-12)


@both
def test_the_own_item_of_an_unpaired_query_is_pulled_nowhere(fast: Contrastive, slow: Contrastive) -> None:
    """Neither as a positive nor as a negative of its own query; to the other queries it is an item like any."""
    logits, paired = random_similarities(3, 4, 4).requires_grad_(), torch.tensor([True, True, False, True])
    fast(logits, torch.eye(4, dtype=torch.bool), paired).backward()
    assert float(logits.grad[2, 2]) == 0.0
    assert all(float(logits.grad[i, 2]) > 0 for i in (0, 1, 3))
    assert all(float(logits.grad[i, i]) < 0 for i in (0, 1, 3))


def test_a_batch_without_any_pair_adds_nothing_to_the_contrastive_loss() -> None:
    """The mean over no queries is 0, with a gradient of zeros and no NaN."""
    logits = (random_similarities(1, 4, 4).float() / 0.005).requires_grad_()
    loss = itc_loss(logits, torch.ones(4, 4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not logits.grad.any()


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


@pytest.mark.parametrize("smoothing", [0.1, 0.6])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_smoothed_labels_spread_over_own_item_and_negatives(smoothing: float, temperature: float) -> None:
    """Against torch's own smoothing, query by query over what is allowed; excluded pairs get no share."""
    excluded, leaf = excluded_pairs(5, 7), random_similarities(0, 5, 7).requires_grad_()
    logits, terms = leaf / temperature, []
    for i in range(5):
        allowed = [i, *(j for j in range(7) if j != i and not excluded[i, j])]
        own = torch.tensor(0)
        terms.append(torch.nn.functional.cross_entropy(logits[i, allowed], own, label_smoothing=smoothing))
    expected, found = torch.stack(terms).mean(), itc_loss(logits, excluded, None, smoothing)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-11, atol=1e-13 / temperature)
