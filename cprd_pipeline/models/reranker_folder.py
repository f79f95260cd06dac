"""The folder that sentence-transformers' `CrossEncoder.save_pretrained` writes: what it holds, and how it is loaded.

Only `load_reranker` needs sentence-transformers; the rest reads files.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from cprd_pipeline.errors import MissingDependencyError, ModelError, first_line
from cprd_pipeline.models.captions import text_limit
from cprd_pipeline.models.failures import loading_failures
from cprd_pipeline.models.loading import without_bars
from cprd_pipeline.models.preprocessing import load_image_processor, load_tokenizer
from cprd_pipeline.models.sentence_files import check_whole, read_json
from cprd_pipeline.store.fingerprint import bytes_digest

_SETTINGS_FILE = "config_sentence_transformers.json"
_MODULES_FILE = "modules.json"
_EXPECTED = "a folder that sentence-transformers' CrossEncoder.save_pretrained wrote"
# How the first module renders a pair and what it reads of the model's output.
_RENDERING_FILES = ("sentence_*_config.json", "*.jinja", "additional_chat_templates/*.jinja")


def is_reranker(folder: Path) -> bool:
    """Whether sentence-transformers wrote the folder as a CrossEncoder: modules.json, and the model type in its settings.

    CrossEncoders from before version 5.4 have neither file and score texts only.

    Raises:
        ModelError: The settings cannot be read.
    """
    if not (folder / _MODULES_FILE).is_file() or not (folder / _SETTINGS_FILE).is_file():
        return False
    settings = read_json(folder / _SETTINGS_FILE, _EXPECTED)
    return isinstance(settings, dict) and settings.get("model_type") == "CrossEncoder"


def own_prompt(folder: Path) -> str:
    """What the model is told before each pair when nothing else is asked for; empty for nothing.

    Raises:
        ModelError: The settings cannot be read.
    """
    settings = read_json(folder / _SETTINGS_FILE, _EXPECTED)
    return settings.get("prompts", {}).get(settings.get("default_prompt_name")) or ""


def pair_limit(folder: Path, wanted: int | None = None) -> int:
    """Longest pair in tokens, or the longest caption when one is asked for.

    Args:
        folder: The model's folder.
        wanted: `teacher.max_text_tokens`; null for what tokenizer and model allow for a whole pair.

    Raises:
        ModelError: There is no tokenizer, or no configuration that transformers knows.
        SettingsError: More is wanted than they allow.
    """
    try:
        config = AutoConfig.from_pretrained(folder).get_text_config()
    except loading_failures() as error:
        raise ModelError(f"{folder}: its configuration cannot be loaded ({first_line(error)})", expected=_EXPECTED) from error
    return text_limit(load_tokenizer(folder), getattr(config, "max_position_embeddings", sys.maxsize), wanted)


def parts_digests(folder: Path) -> dict[str, str]:
    """Digests of what shapes a score and lies outside the files that every model folder has, by path within the folder.

    Chat templates, the first module's settings, and all files of the further modules, their weights included.

    Raises:
        ModelError: The list of modules cannot be read.
    """
    files = [file for pattern in _RENDERING_FILES for file in folder.glob(pattern)]
    modules = read_json(folder / _MODULES_FILE, _EXPECTED)
    for module in modules:
        if module["path"]:
            files.extend(file for file in (folder / module["path"]).rglob("*") if file.is_file())
    digests = {file.relative_to(folder).as_posix(): bytes_digest(file.read_bytes()).hex() for file in sorted(files)}
    return {**digests, _MODULES_FILE: bytes_digest(json.dumps(modules, sort_keys=True).encode()).hex()}


def load_reranker(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The `CrossEncoder` of a folder, its last linear layer in float32 at least, so that near scores do not fall together.

    Code that a folder brings along is never run, and nothing is fetched.

    Raises:
        MissingDependencyError: sentence-transformers or a package that this model needs is not installed.
        ModelError: Not such a folder, a part is missing, or it gives no single score for a picture and a text.
    """
    if not is_reranker(folder):
        raise ModelError(f"{folder}: no {_MODULES_FILE}, or no CrossEncoder in its {_SETTINGS_FILE}", expected=_EXPECTED)
    cross_encoder = _cross_encoder_class()
    try:
        with without_bars():
            model = cross_encoder(str(folder), device=str(device), local_files_only=True, model_kwargs={"dtype": dtype})
        if dtype.itemsize < torch.float32.itemsize:
            linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
            model.set_keep_in_fp32_modules([*model.keep_in_fp32_modules, *linear[-1:]])
    except ImportError as error:
        reason = first_line(error).split(". ")[0]
        raise MissingDependencyError(
            f"{folder}: needs a package that is missing ({reason})", do="install it (the Qwen-VL families need torchvision)"
        ) from error
    except loading_failures() as error:
        raise ModelError(f"{folder}: cannot be loaded ({first_line(error)})", expected=_EXPECTED) from error
    _check_kind(folder, model)
    check_whole(folder, model.transformers_model, folder.glob("*.safetensors"))
    # The processor takes torchvision's kind where that is installed: two machines would see two pictures.
    model.processor.image_processor = load_image_processor(folder)
    return model.eval()


def _cross_encoder_class() -> Any:
    try:
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        raise MissingDependencyError(
            f"sentence-transformers cannot be imported ({first_line(error)})", do="pip install 'cprd-pipeline[rerankers]'"
        ) from error
    return CrossEncoder


def _check_kind(folder: Path, model: Any) -> None:
    if not {"image", "message"} <= set(model.modalities):
        found = ", ".join(str(modality) for modality in model.modalities)
        raise ModelError(f"{folder}: takes {found}", expected="a reranker that takes images and has a chat template (message)")
    if model.num_labels != 1:
        raise ModelError(f"{folder}: gives {model.num_labels} labels", expected="one: the score of a pair")
