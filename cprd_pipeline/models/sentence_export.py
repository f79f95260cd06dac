"""Small files by which sentence-transformers reads a saved dual encoder too, and computes exactly what transformers does.

They say: this very model, its two feature methods, the same pixels and tokens, then length one. Nothing in them is of a
version or a machine. A folder with these files and no other modules is still a plain one of transformers.
"""

from pathlib import Path
from typing import Any

from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.loading import read_config
from cprd_pipeline.models.sentence_files import read_json
from cprd_pipeline.store.atomic import write_json

_READER_FILE = "sentence_bert_config.json"
# Where the settings of the last module would be: there are none, so there is no such folder.
_NORMALIZE = "1_Normalize"
_EXPECTED = "the file that was written with this student"

# Types of configuration whose class sentence-transformers 6.2 loads as we do (tests/models/test_sentence_export.py), and how
# their captions are padded where that is not its own way. Not BLIP, of which it makes another model than the retrieval one.
_TEXT_SETTINGS: dict[str, dict[str, Any]] = {
    "altclip": {},
    "chinese_clip": {},
    "clip": {},
    "metaclip_2": {},
    "siglip": {"padding": "max_length", "return_attention_mask": False},
    "vision-text-dual-encoder": {},
}


def loads_in_sentence_transformers(model: Any) -> bool:
    """Whether `SentenceTransformer(folder)` reads what `DualEncoder.save` writes of this model, and gives the same vectors.

    Args:
        model: A model of transformers.
    """
    return model.config.model_type in _TEXT_SETTINGS


def write_sentence_files(folder: Path, model: Any, longest: int) -> None:
    """Add the files to a saved model's folder.

    Args:
        folder: Of the model, its tokenizer and its image processor.
        model: One that `loads_in_sentence_transformers`.
        longest: Tokens after which captions are cut, special ones included.
    """
    for name, content in _files(model.config.model_type, longest).items():
        write_json(folder / name, content)


def adds_nothing(folder: Path) -> bool:
    """Whether the folder's files of sentence-transformers are the ones that we write: plain loading leaves nothing out then.

    Another module, prompt, way of padding or feature method makes it a model of sentence-transformers' own.
    """
    if (folder / _NORMALIZE).exists():
        return False
    try:
        found = _files(read_config(folder)["model_type"], _longest(folder))
        return all(read_json(folder / name, _EXPECTED) == content for name, content in found.items())
    except (ModelError, KeyError, TypeError):
        return False  # missing, damaged or of another form: whoever reads it next says what is wrong


def check_sentence_length(folder: Path, longest: int) -> None:
    """Refuse a folder in which sentence-transformers would cut captions elsewhere than we do.

    Args:
        folder: A model's folder, with or without the files.
        longest: Tokens after which captions are cut, special ones included.

    Raises:
        ModelError: The number in the files was changed.
    """
    if adds_nothing(folder) and (found := _longest(folder)) != longest:
        raise ModelError(
            f"{folder / _READER_FILE}: captions are cut at {found} tokens",
            expected=f"{longest}, as the model and its tokenizer have it",
            do="mend max_length, or delete modules.json",
        )


def _longest(folder: Path) -> Any:
    return read_json(folder / _READER_FILE, _EXPECTED)["processing_kwargs"]["text"]["max_length"]


def _files(model_type: str, longest: int) -> dict[str, Any]:
    """Content of each file by its name, relative to the model's folder."""
    package = "sentence_transformers.base.modules"
    features = {kind: {"method": f"get_{kind}_features", "method_output_name": "pooler_output"} for kind in ("image", "text")}
    return {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{package}.transformer.Transformer"},
            {"idx": 1, "name": "1", "path": _NORMALIZE, "type": f"{package}.normalize.Normalize"},
        ],
        "config_sentence_transformers.json": {
            "model_type": "SentenceTransformer",
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        _READER_FILE: {
            "transformer_task": "feature-extraction",
            "modality_config": features,
            "module_output_name": "sentence_embedding",
            "processing_kwargs": {"text": {"max_length": longest, **_TEXT_SETTINGS[model_type]}},
            # Without this word it takes torchvision's image processor where that is installed, which resizes otherwise.
            "processor_kwargs": {"backend": "pil"},
        },
    }
