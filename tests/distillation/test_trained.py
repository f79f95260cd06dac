"""Which weights move in training, and that adapters leave a plain model behind."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.batches import BatchRows, PositivePairs
from cprd_pipeline.distillation.learner import Learner
from cprd_pipeline.distillation.loop_settings import Lora
from cprd_pipeline.distillation.meeting import in_batch
from cprd_pipeline.distillation.processes import Processes
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.trained import add_adapters, checkpoint_activations, freeze, merge_adapters, parameter_groups
from cprd_pipeline.errors import MissingDependencyError, ModelError
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.models.students import initial_student
from tests.tiny_encoders import simple_corpus, tiny_clip, tiny_siglip, tiny_two_towers

FAMILIES: dict[str, Callable[[Path], Path] | None] = {
    "clip": tiny_clip,
    "two towers": tiny_two_towers,
    "siglip": tiny_siglip,
    "scenes": None,
}
MAKERS = [name for name, maker in FAMILIES.items() if maker]
CPU = torch.device("cpu")
Weights = dict[str, torch.Tensor]
Make = Callable[..., DualEncoder]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name of each family's student."""
    root = tmp_path_factory.mktemp("students")
    return {name: "scenes" if maker is None else str(maker(root / name)) for name, maker in FAMILIES.items()}


@pytest.fixture
def make(folders: dict[str, str]) -> Make:
    """A function that loads a family's student."""

    def load(family: str, dtype: torch.dtype = torch.float32) -> DualEncoder:
        return initial_student(folders[family], 0, CPU, dtype)

    return load


def settings_of(family: str = "clip", **values: Any) -> DistillSettings:
    """SigLIP learns by its own loss, so that its bias takes part."""
    contrastive = "sigmoid" if family == "siglip" else "itc"
    return DistillSettings.model_validate(
        {"objective": "itc", "contrastive": contrastive, "batch_size": 4, "warmup_steps": 0, **values}
    )


def pixels_of(student: DualEncoder, count: int = 4) -> torch.Tensor:
    size = 48 if student.image_processor.size.get("height") == 48 else 32
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def corpus_of(family: str, folder: Path, write_corpus: Callable[[Path], Corpus]) -> Corpus:
    return write_corpus(folder / "corpus") if family == "scenes" else Corpus(simple_corpus(folder / "corpus", 4))


def weights_of(model: nn.Module) -> Weights:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def moved(before: Weights, model: nn.Module) -> set[str]:
    return {name for name, weight in weights_of(model).items() if not torch.equal(weight, before[name])}


def tower_of(family: str, which: str) -> str:
    """How the names of a tower's weights begin."""
    names = ("image_tower.", "text_tower.") if family == "scenes" else ("vision_model.", "text_model.")
    return names[which == "text"]


def learner_of(settings: DistillSettings, student: DualEncoder, corpus: Corpus, folder: Path) -> Learner:
    positives = PositivePairs(corpus.split("train"), len(corpus.captions))
    return Learner(settings, student, corpus, None, positives, Processes(), folder)


def train(learner: Learner, steps: int) -> None:
    """Some steps with the first caption of each of four pictures."""
    learner.train()
    rows = BatchRows.of_pairs(np.arange(4), 2 * np.arange(4))
    for step in range(steps):
        learner.step(step, in_batch(rows), pixels_of(learner.student))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("which", ["vision", "text"])
def test_a_frozen_tower_neither_moves_nor_drops_out(
    family: str, which: str, make: Make, tmp_path: Path, write_corpus: Callable[[Path], Corpus]
) -> None:
    """Its weights keep their bits under weight decay and it stays in evaluation mode; everything else learns."""
    student, frozen = make(family), tower_of(family, which)
    before = weights_of(student.model)
    learner = learner_of(settings_of(family, freeze=(which,)), student, corpus_of(family, tmp_path, write_corpus), tmp_path)
    train(learner, 2)
    unmoved = {name for name in before if name.startswith(frozen)}
    assert unmoved
    for model in (student.model, learner.kept_model):
        still = set(before) - moved(before, model)
        assert unmoved <= still
        # The biases of keys have no gradient but rounding errors: softmax does not feel them.
        assert all(name.endswith(("k_proj.bias", "key.bias")) for name in still - unmoved)
    modes = {name: module.training for name, module in student.model.named_modules() if name}
    assert not any(training for name, training in modes.items() if f"{name}.".startswith(frozen))
    assert all(training for name, training in modes.items() if not f"{name}.".startswith(frozen))


@pytest.mark.parametrize("family", FAMILIES)
def test_both_towers_can_be_frozen(family: str, make: Make) -> None:
    """Projections, where they lie outside, and the temperature go on learning."""
    model = make(family).model
    towers = freeze(model, ["vision", "text"])
    assert towers == [model.get_submodule(tower_of(family, which)[:-1]) for which in ("vision", "text")]
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    outside = {
        "siglip": {"logit_bias"},
        "scenes": {f"{side}_projection.{part}" for side in ("visual", "text") for part in ("weight", "bias")},
    }
    assert learning == {"logit_scale"} | outside.get(family, {"visual_projection.weight", "text_projection.weight"})


def test_a_model_without_such_a_tower_cannot_be_frozen() -> None:
    """The message says which names are looked for."""
    with pytest.raises(ModelError, match=r"Linear has no text tower to freeze; expected a module called text_model or text_tower"):
        freeze(nn.Linear(2, 2), ["text"])


def linear_layers(model: nn.Module, prefix: str = "") -> set[str]:
    return {name for name, module in model.named_modules() if type(module) is nn.Linear and name.startswith(prefix)}


def adapted_layers(model: nn.Module) -> set[str]:
    return {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_learn_in_place_of_the_towers(
    family: str, make: Make, tmp_path: Path, write_corpus: Callable[[Path], Corpus]
) -> None:
    """Only they, the projections and the temperature move; every linear layer of the towers has one, and nothing else."""
    student = make(family)
    towers = [tower_of(family, which) for which in ("vision", "text")]
    outside = {name for name in weights_of(student.model) if not name.startswith(tuple(towers))}
    expected = {name for prefix in towers for name in linear_layers(student.model, prefix)}
    learner = learner_of(settings_of(family, lora={"rank": 2}), student, corpus_of(family, tmp_path, write_corpus), tmp_path)
    before = weights_of(student.model)
    train(learner, 3)
    adapters = {name for name in before if ".lora_" in name}
    assert adapted_layers(student.model) == expected
    for model in (student.model, learner.kept_model):
        found = moved(before, model)
        assert found <= adapters | outside
        assert outside <= found
        # An adapter of keys' layer has a gradient, as its weight has.
        assert adapters <= found


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_adapters_leave_the_plain_model_with_the_same_vectors(family: str, make: Make, tmp_path: Path) -> None:
    """To 1e-12 in float64, dropout or not; the weights have the names and places of the model's class, and load again."""
    student, plain = make(family, torch.float64), make(family, torch.float64)
    add_adapters(student.model, Lora(rank=3, alpha=5, dropout=0.5))
    random = torch.Generator().manual_seed(2)
    for name, weight in student.model.named_parameters():
        if ".lora_" in name:
            weight.data.normal_(std=0.3, generator=random)
    student.model.eval()
    adapted = vectors_of(student)
    assert max(float((a - p).abs().max()) for a, p in zip(adapted, vectors_of(plain), strict=True)) > 1e-3
    merge_adapters(student.model)
    assert vectors_of(student)[0].dtype == torch.float64
    for merged, expected in zip(vectors_of(student), adapted, strict=True):
        torch.testing.assert_close(merged, expected, rtol=0, atol=1e-12)
    assert list(student.model.state_dict()) == list(plain.model.state_dict())
    assert [type(module) for module in student.model.modules()] == [type(module) for module in plain.model.modules()]
    student.save(tmp_path / "saved")
    loaded = DualEncoder.load(str(tmp_path / "saved"), CPU, torch.float64)
    for merged, expected in zip(vectors_of(loaded), adapted, strict=True):
        torch.testing.assert_close(merged, expected, rtol=0, atol=1e-6)  # it is read in float32


@torch.no_grad()
def vectors_of(student: DualEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Of random pictures and some captions."""
    images = student.embed_images(pixels_of(student))
    return images, student.embed_captions(["a b c", "red circle", "x"])


@pytest.mark.parametrize("family", FAMILIES)
def test_fresh_adapters_change_nothing(family: str, make: Make) -> None:
    """Training with them begins at the model that was given; so does a model that never had any and is merged."""
    student = make(family, torch.float64)
    before = vectors_of(student)
    merge_adapters(student.model)
    add_adapters(student.model, Lora())
    student.model.eval()
    for now, then in zip(vectors_of(student), before, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=1e-14)


def test_adapters_are_put_where_the_names_say(make: Make) -> None:
    """The last part of a layer's name, in either tower; another tower's names may be among them."""
    model = make("two towers").model
    expected = {name for name in linear_layers(model) if name.endswith((".q_proj", ".self.query"))}
    add_adapters(model, Lora(targets=("q_proj", "query", "absent")))
    assert adapted_layers(model) == expected
    assert len(expected) == 4


def test_a_frozen_tower_gets_no_adapters(make: Make) -> None:
    """What shall not learn at all does not learn by adapters either."""
    model = make("clip").model
    expected = linear_layers(model, "text_model.")
    freeze(model, ["vision"])
    add_adapters(model, Lora())
    assert adapted_layers(model) == expected
    assert not any(weight.requires_grad for weight in model.vision_model.parameters())


def test_the_rank_and_the_scale_of_adapters_are_the_settings(make: Make) -> None:
    """The product is added alpha / rank times."""
    model = make("clip", torch.float64).model
    layer = model.text_model.encoder.layers[0].mlp.fc1
    plain = copy.deepcopy(layer)
    add_adapters(model, Lora(rank=4, alpha=6, targets=("fc1",)))
    adapter = model.text_model.encoder.layers[0].mlp.fc1
    down, up = adapter.lora_A["default"].weight, adapter.lora_B["default"].weight
    nn.init.normal_(up, generator=torch.Generator().manual_seed(0))
    states = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert (down.shape, up.shape) == ((4, 32), (64, 4))
    torch.testing.assert_close(adapter(states), plain(states) + 6 / 4 * (states @ down.T @ up.T), rtol=1e-12, atol=1e-12)


def test_names_that_no_layer_has_are_refused(make: Make) -> None:
    """A run with nothing to train but projections would be a silent mistake."""
    with pytest.raises(ModelError, match=r"lora.targets \('query_key',\): no linear layer has such a name in.*such as q_proj"):
        add_adapters(make("clip").model, Lora(targets=("query_key",)))


def test_adapters_need_a_tower_that_learns(make: Make) -> None:
    """Frozen towers leave no layer to put them beside."""
    model = make("clip").model
    freeze(model, ["vision", "text"])
    with pytest.raises(ModelError, match="all-linear: no linear layer has such a name in a tower that is not frozen"):
        add_adapters(model, Lora())


def test_without_peft_the_extra_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install, or which setting to change."""
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match=r"lora needs peft.*cprd-pipeline\[lora\].*set lora to null"):
        add_adapters(make("scenes").model, Lora())


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_every_weight_that_learns_is_in_one_group(decay: str, make: Make) -> None:
    """Frozen ones are in none; norms, biases and the temperature are spared only where the setting says so."""
    model = make("scenes").model
    freeze(model, ["text"])
    groups = parameter_groups(model, settings_of(decay=decay, weight_decay=0.7))
    decay_of = {id(weight): group["weight_decay"] for group in groups for weight in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(decay_of)
    for name, weight in model.named_parameters():
        spared = decay == "weights" and (name.endswith("bias") or "norm" in name or name == "logit_scale")
        assert decay_of.get(id(weight)) == (None if name.startswith("text_tower.") else 0.0 if spared else 0.7), name


@pytest.mark.parametrize("family", MAKERS)
def test_activations_computed_again_give_the_same_gradients(family: str, make: Make) -> None:
    """Layers run a second time in the backward pass, also those of towers under a class that has none itself."""
    found = []
    for again in (False, True):
        student = make(family, torch.float64)
        student.model.train()
        if again:
            checkpoint_activations(student.model)
        tokens = student.tokens(["a b c", "x", "b b", "q"])
        calls = count_calls(student.model)
        torch.manual_seed(3)  # BERT drops out
        similarities = student.embed_images(pixels_of(student)) @ student.embed_texts(**tokens).T
        (similarities * torch.arange(16.0).reshape(4, 4)).sum().backward()
        gradients = {name: weight.grad for name, weight in student.model.named_parameters() if weight.grad is not None}
        found.append((sum(calls.values()), gradients))
    (once, plain), (twice, checkpointed) = found
    assert (once, twice) == (4, 8)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("family", MAKERS)
def test_a_frozen_tower_keeps_nothing_for_a_backward_pass(family: str, make: Make) -> None:
    """Also where activations are computed again: its states have no graph."""
    student = make(family)
    freeze(student.model, ["text"])
    checkpoint_activations(student.model)
    student.model.train()
    assert not student.model.text_model(**student.tokens(["a b c"])).last_hidden_state.requires_grad
    assert student.model.vision_model(pixels_of(student)).last_hidden_state.requires_grad


def count_calls(model: nn.Module) -> dict[str, int]:
    """How often each feed-forward layer's first half ran: two layers in each of two towers."""
    calls: dict[str, int] = {}
    for name, module in model.named_modules():
        if name.endswith(("layers.0.mlp.fc1", "layers.1.mlp.fc1", "intermediate.dense")):
            calls[name] = 0
            module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    return calls


def test_a_class_that_cannot_compute_activations_again_is_refused(make: Make) -> None:
    """The message says what saves memory instead."""
    with pytest.raises(
        ModelError, match=r"SceneStudent has no gradient checkpointing; set gradient_checkpointing to false.*micro_batch"
    ):
        checkpoint_activations(make("scenes").model)
