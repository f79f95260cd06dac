"""Which of the student's weights learn: all, one tower, or low-rank adapters; and the optimizer's groups.

Shape suffixes: none.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from cprd_pipeline.distillation.loop_settings import Lora
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.errors import MissingDependencyError, ModelError

_TOWERS = {"vision": ("vision_model", "image_tower"), "text": ("text_model", "text_tower")}
Tower = Literal["vision", "text"]


def freeze(model: nn.Module, towers: Sequence[Tower]) -> list[nn.Module]:
    """Switch the gradients of towers off; projections outside them (SigLIP has none) and the temperature go on learning.

    Returns:
        The frozen towers, to be kept in evaluation mode.

    Raises:
        ModelError: The model has no tower of that name.
    """
    frozen = [_tower(model, name) for name in towers]
    for tower in frozen:
        tower.requires_grad_(False)
    return frozen


def add_adapters(model: nn.Module, settings: Lora) -> None:
    """Freeze both towers and put adapters beside their linear layers; projections and temperature go on learning in full.

    Raises:
        MissingDependencyError: peft is not installed.
        ModelError: No linear layer of a tower that is not frozen has one of the names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingDependencyError(
            "lora needs peft, which is not installed", do="pip install 'cprd-pipeline[lora]', or set lora to null"
        ) from error
    outside = [weight for weight in _outside_towers(model) if weight.requires_grad]
    names = [
        f"{prefix}.{name}"
        for prefix, tower in _towers(model)
        for name, layer in tower.named_modules()
        # Exactly: the output layer of nn.MultiheadAttention, a subclass, is never called as a layer.
        if type(layer) is nn.Linear and (settings.targets == "all-linear" or name.rsplit(".")[-1] in settings.targets)
        if all(weight.requires_grad for weight in layer.parameters())
    ]
    if not names:
        raise ModelError(
            f"lora.targets {settings.targets}: no linear layer has such a name in a tower that is not frozen",
            expected="names such as q_proj, v_proj",
        )
    alpha: Any = settings.alpha  # peft's annotation says int; it does nothing but divide it by the rank
    config = LoraConfig(r=settings.rank, lora_alpha=alpha, lora_dropout=settings.dropout, target_modules=names)
    inject_adapter_in_model(config, model)
    for weight in outside:
        weight.requires_grad_(True)


def merge_adapters(model: nn.Module) -> None:
    """Add the adapters' products to the weights that they stood beside, and take them out; a model without any stays as it is."""
    for name, layer in list(model.named_modules()):
        if hasattr(layer, "merge") and hasattr(layer, "get_base_layer"):
            layer.merge()
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def parameter_groups(model: nn.Module, settings: DistillSettings) -> list[dict[str, Any]]:
    """Decay on everything, or on weight matrices only (no norms, biases, temperature); frozen weights are in no group."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if settings.decay == "all" or parameter.ndim >= 2]
    spared = [parameter for parameter in trained if settings.decay == "weights" and parameter.ndim < 2]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def checkpoint_activations(model: Any) -> None:
    """Compute activations again in the backward pass instead of keeping them.

    Raises:
        ModelError: Neither the model's class nor those of its towers can.
    """
    # VisionTextDualEncoder has no layers of its own, and leaves it to its towers.
    parts = [model] if getattr(model, "supports_gradient_checkpointing", False) else [tower for _, tower in _towers(model)]
    if not parts or not all(getattr(part, "supports_gradient_checkpointing", False) for part in parts):
        raise ModelError(
            f"{type(model).__name__} has no gradient checkpointing",
            do="set gradient_checkpointing to false, and micro_batch to save memory",
        )
    for part in parts:
        # transformers has renamed it, and warns of the old name.
        enable = getattr(part, "activation_checkpointing_enable", None) or part.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        # It lets the inputs of layers require gradients too, which would keep the whole graph of a frozen tower.
        part.disable_input_require_grads()


def _towers(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, getattr(model, name)) for names in _TOWERS.values() for name in names if hasattr(model, name)]


def _tower(model: nn.Module, which: Tower) -> nn.Module:
    for name in _TOWERS[which]:
        if hasattr(model, name):
            tower: nn.Module = getattr(model, name)
            return tower
    raise ModelError(
        f"{type(model).__name__} has no {which} tower to freeze", expected=f"a module called {' or '.join(_TOWERS[which])}"
    )


def _outside_towers(model: nn.Module) -> list[torch.Tensor]:
    inside = {id(weight) for _, tower in _towers(model) for weight in tower.parameters()}
    return [weight for weight in model.parameters() if id(weight) not in inside]
