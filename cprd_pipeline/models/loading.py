"""From a model's name to its folder, and from a folder to the digest of everything that shapes its numbers."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cprd_pipeline.corpus.images import DECODER_VERSION
from cprd_pipeline.errors import ModelError, first_line
from cprd_pipeline.models.failures import loading_failures
from cprd_pipeline.models.weights import has_weights, own_tensors_digest, refuse_pointers, tensors_digest
from cprd_pipeline.store.fingerprint import DIGEST_BYTES, json_digest
from cprd_pipeline.store.schemas import FINGERPRINT_VERSION

# What a hub snapshot is fetched for: configuration, tokenizer, processor, and weights that load without pickle first.
_HUB_PATTERNS = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")
# Keys that say where a configuration came from or how it was stored, not what it computes.
_INERT_KEYS = frozenset(
    {
        "_name_or_path",
        "_commit_hash",
        "name_or_path",
        "is_local",
        "local_files_only",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "architectures",
    }
)
# Files by which tokenizers and image processors change what a model sees.
_PREPROCESSING_FILES = (
    "added_tokens.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def resolve_model(name: str) -> Path:
    """The folder of a model: itself when it is a folder here, otherwise the snapshot of a hub repository.

    Raises:
        ModelError: Neither a folder nor a repository that can be had, or a folder whose weights are pointers of Git LFS.
    """
    folder = Path(name)
    if folder.is_dir():
        refuse_pointers(folder)
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name.split("/")[0]).is_dir():
        raise ModelError(
            f"{name}: there is no such folder{_from_where(folder)}",
            expected="a model folder or a hub name owner/model",
            do=_made_by(folder),
        )
    # Here, as everything of transformers: a run whose vectors are all cached needs none of it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = Path(snapshot_download(name, allow_patterns=list(_HUB_PATTERNS)))
        if not has_weights(snapshot):
            snapshot = Path(snapshot_download(name, allow_patterns=[*_HUB_PATTERNS, "pytorch_model*.bin"]))
        return snapshot
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = first_line(error)
        raise ModelError(
            f"{name}: neither a folder here nor to be had from the hub ({reason})",
            do="check the name, or download it and give its folder",
        ) from error


def _from_where(folder: Path) -> str:
    return "" if folder.is_absolute() else f" in {Path.cwd()}"


def _made_by(folder: Path) -> str:
    """Which command makes a folder that a stage writes."""
    if folder.parent.name == "students":
        return "train it first: `dvc repro`, or `cprd-pipeline distill` (--config stages/base_student.yaml for data/students/base)"
    if folder == Path("data/teacher"):
        return "train it first: `dvc repro`, or `cprd-pipeline train-teacher`"
    return "mend the name in the settings"


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers' own bars for reading and writing weights off the terminal, where ours are."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json.

    Raises:
        ModelError: There is none, or it is not JSON.
    """
    path = folder / "config.json"
    if not path.exists():
        raise ModelError(f"{folder}: no config.json in it", expected="a folder that transformers' save_pretrained wrote")
    config = _read_json(path)
    if "model_type" not in config:
        raise ModelError(f"{folder / 'config.json'}: no model_type in it", expected="the configuration of a transformers model")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path}: cannot be read ({reason})", expected="JSON as save_pretrained wrote it") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: holds {'a list' if isinstance(content, list) else 'a single value'}", expected="a JSON object")
    return content


def load_whole(model_class: Any, folder: Path, expected: str, **options: Any) -> Any:
    """A model from its folder by `from_pretrained`, in float32 and with every weight of its class.

    Args:
        model_class: Of transformers.
        folder: The folder.
        expected: What the folder should hold, for the message.
        **options: For `from_pretrained`.

    Raises:
        ModelError: It cannot be loaded, or weights are missing.
    """
    # Here, as everything that loads: fingerprints need none of it.
    import torch

    try:
        with without_bars():
            model, notes = model_class.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **options)
    except loading_failures() as error:
        raise ModelError(f"{folder}: cannot be loaded ({first_line(error)})", expected=expected) from error
    if missing := sorted(notes["missing_keys"]):
        # transformers would go on with random numbers in their place.
        raise ModelError(f"{folder}: {len(missing)} weights are missing (first: {missing[0]})", expected=expected)
    return model


def model_fingerprint(folder: Path, *, own_code: bool = False, **facts: Any) -> str:
    """Digest of everything that makes a model's output the same: never a path, a device or a batch size.

    Args:
        folder: The model's folder.
        own_code: Whether code of the user's reads it, which may read more than transformers does.
        **facts: What the caller adds: role, head, maximum length, dtype, an adapter's version; JSON values.
    """
    preprocessing = {
        name: json_digest(_without_inert(_read_json(path)))
        if path.suffix == ".json"
        else hashlib.blake2b(path.read_bytes(), digest_size=DIGEST_BYTES).hexdigest()
        for name in _PREPROCESSING_FILES
        if (path := folder / name).is_file()
    }
    return json_digest(
        {
            "tensors": own_tensors_digest(folder) if own_code else tensors_digest(folder),
            "config": _without_inert(read_config(folder)),
            "preprocessing": preprocessing,
            "decoder": DECODER_VERSION,
            "schema": FINGERPRINT_VERSION,
            "facts": facts,
        }
    )


def _without_inert(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_inert(inner) for key, inner in value.items() if key not in _INERT_KEYS}
    if isinstance(value, list):
        return [_without_inert(inner) for inner in value]
    return value
