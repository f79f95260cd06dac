"""Which folders sentence-transformers wrote, and the digest of everything that shapes their embeddings; nothing is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cprd_pipeline.corpus.images import DECODER_VERSION
from cprd_pipeline.models.device import plain_name
from cprd_pipeline.models.sentence_export import adds_nothing
from cprd_pipeline.models.sentence_files import read_json
from cprd_pipeline.store.digest_memory import remembered_checksum
from cprd_pipeline.store.fingerprint import json_digest
from cprd_pipeline.store.schemas import FINGERPRINT_VERSION

if TYPE_CHECKING:
    import torch

ADAPTER_VERSION = 1
"""Raised whenever the same folder would give other embeddings through `encoder_sentence`; part of the fingerprint."""

MODULES_FILE = "modules.json"
EXPECTED = "a multimodal model that sentence-transformers' SentenceTransformer.save_pretrained wrote"
_SETTINGS_FILE = "config_sentence_transformers.json"
_SHAPING_SUFFIXES = frozenset({".json", ".jinja", ".txt", ".model", ".safetensors", ".bin"})
# Who wrote a file, and where from: no part of what it computes.
_INERT_KEYS = frozenset({"__version__", "transformers_version", "_name_or_path", "name_or_path"})


def is_sentence_encoder(folder: Path) -> bool:
    """Whether a folder must be read through sentence-transformers: it wrote it, and not as a CrossEncoder.

    What `DualEncoder.save` writes has its files too, but is plain.

    Raises:
        ModelError: Its settings cannot be read.
    """
    if not (folder / MODULES_FILE).is_file() or adds_nothing(folder):
        return False
    settings = read_json(folder / _SETTINGS_FILE, EXPECTED) if (folder / _SETTINGS_FILE).is_file() else {}
    # Before version 5.4 the settings said nothing, and only SentenceTransformer wrote modules.json.
    return bool(settings.get("model_type", "SentenceTransformer") == "SentenceTransformer")


def sentence_fingerprint(folder: Path, dtype: "torch.dtype | str") -> str:
    """Digest of every file that shapes an embedding, at any depth.

    The same weights in other files count as another encoder.

    Raises:
        ModelError: A file cannot be read.
    """
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix in _SHAPING_SUFFIXES)
    names = {file.relative_to(folder).as_posix(): file for file in files}
    return json_digest(
        {
            "files": {name: _file_digest(file) for name, file in names.items() if not name.startswith(".")},
            "decoder": DECODER_VERSION,
            "schema": FINGERPRINT_VERSION,
            "facts": {"role": "sentence_encoder", "dtype": plain_name(dtype), "adapter": ADAPTER_VERSION},
        }
    )


def _file_digest(file: Path) -> str:
    return json_digest(_without_inert(read_json(file, EXPECTED))) if file.suffix == ".json" else remembered_checksum(file)


def _without_inert(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_inert(inner) for key, inner in value.items() if key not in _INERT_KEYS}
    return value
