"""From the choice of a teacher to its adapter, and to the fingerprint that its scores are kept under."""

import importlib
from pathlib import Path
from typing import Any

import torch

from cprd_pipeline.errors import ModelError, SettingsError
from cprd_pipeline.models.blip import BlipTeacher
from cprd_pipeline.models.blip2 import Blip2Teacher
from cprd_pipeline.models.bridgetower import BridgeTowerTeacher
from cprd_pipeline.models.cross_encoder import CrossEncoder
from cprd_pipeline.models.device import choose_dtype
from cprd_pipeline.models.flava import FlavaTeacher
from cprd_pipeline.models.loading import model_fingerprint, read_config, resolve_model
from cprd_pipeline.models.reranker import RerankerTeacher
from cprd_pipeline.models.reranker_folder import is_reranker
from cprd_pipeline.models.scene_teacher import SceneTeacher
from cprd_pipeline.models.teacher_choice import TeacherChoice
from cprd_pipeline.models.vilt import ViltTeacher

FAMILIES: dict[str, type[CrossEncoder]] = {
    "blip": BlipTeacher,
    "blip-2": Blip2Teacher,
    "bridgetower": BridgeTowerTeacher,
    "flava": FlavaTeacher,
    "vilt": ViltTeacher,
    "scene_cross_encoder": SceneTeacher,
}
"""Adapter of each `model_type` of a config.json."""

# Settings that only some adapters know; the others are for all.
_OPTIONS = frozenset(TeacherChoice.model_fields) - {"model", "adapter", "dtype"}


def teacher_adapter(choice: TeacherChoice) -> type[CrossEncoder]:
    """The adapter's class; nothing is loaded.

    Raises:
        ModelError: No such model, or no adapter for its family.
        SettingsError: The own adapter cannot be had, or is no `CrossEncoder`; or it has no such setting.
    """
    adapter = _own_adapter(choice.adapter) if choice.adapter else _family_adapter(resolve_model(choice.model))
    for name in sorted(_OPTIONS - adapter.options):
        if getattr(choice, name) != TeacherChoice.model_fields[name].default:
            raise SettingsError(
                f"teacher.{name} is {getattr(choice, name)!r}, and {adapter.__name__} has no such setting", do="leave it out"
            )
    return adapter


def load_teacher(choice: TeacherChoice, device: torch.device) -> CrossEncoder:
    """Load the teacher.

    Raises:
        ModelError: The model cannot be loaded.
        SettingsError: As `teacher_adapter`, or the model cannot do what the settings ask for.
    """
    adapter = teacher_adapter(choice)
    return adapter.load(resolve_model(choice.model), device, choose_dtype(choice.dtype, device), **_options(choice, adapter))


def teacher_fingerprint(choice: TeacherChoice) -> str:
    """Names everything that makes a pair's score the same, by reading files only.

    Weights, behaviour-relevant configuration, tokenizer, image processing, decoder, dtype, adapter and its version, and
    what the adapter's options come down to. Never a path or a device.

    Raises:
        ModelError: No such model, or a part of it is missing.
        SettingsError: As `load_teacher`.
    """
    adapter, folder = teacher_adapter(choice), resolve_model(choice.model)
    return model_fingerprint(
        folder,
        own_code=choice.adapter is not None,
        role="teacher",
        # The class's name, since the same weights may be read in two ways.
        adapter=f"{adapter.__module__}:{adapter.__qualname__}" if choice.adapter else adapter.__qualname__,
        version=adapter.version,
        dtype=choice.dtype,
        options=adapter.facts(folder, **_options(choice, adapter)),
    )


def _options(choice: TeacherChoice, adapter: type[CrossEncoder]) -> dict[str, Any]:
    return {name: getattr(choice, name) for name in sorted(adapter.options)}


def _family_adapter(folder: Path) -> type[CrossEncoder]:
    if is_reranker(folder):
        return RerankerTeacher
    family = read_config(folder)["model_type"]
    if family not in FAMILIES:
        raise ModelError(
            f"{folder}: no adapter for the model type {family!r}",
            expected=" or ".join(FAMILIES),
            do="name an own one in teacher.adapter (README: An own teacher)",
        )
    return FAMILIES[family]


def _own_adapter(name: str) -> type[CrossEncoder]:
    module_name, colon, class_name = name.partition(":")
    if not colon or not module_name or not class_name:
        raise SettingsError(f"teacher.adapter is {name!r}", expected="package.module:Class")
    try:
        adapter = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"teacher.adapter {name}: there is no module {error.name!r}", do="install it, or add its folder to PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise SettingsError(f"teacher.adapter {name}: {error}", expected="a class of that module") from error
    if not isinstance(adapter, type) or not issubclass(adapter, CrossEncoder):
        raise SettingsError(f"teacher.adapter {name}: not a CrossEncoder", expected=f"a subclass of {CrossEncoder.__module__}")
    if adapter.__abstractmethods__:
        lacking = ", ".join(sorted(adapter.__abstractmethods__))
        raise SettingsError(f"teacher.adapter {name}: lacks {lacking}", expected="every abstract method of CrossEncoder")
    if adapter.options - _OPTIONS:
        strangers = ", ".join(sorted(adapter.options - _OPTIONS))
        raise SettingsError(
            f"teacher.adapter {name}: its options name {strangers}", expected=f"some of {', '.join(sorted(_OPTIONS))}"
        )
    return adapter
