"""The folder of a transformers dual encoder: which class reads it, and whether its parts fit."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from cprd_pipeline.errors import MissingDependencyError, ModelError, first_line
from cprd_pipeline.models.encoder_features import is_blip
from cprd_pipeline.models.failures import loading_failures
from cprd_pipeline.models.loading import read_config, without_bars
from cprd_pipeline.models.preprocessing import load_tokenizer

# SigLIP reads the state at the last position and was trained on captions padded to the full length without a mask.
# Padded only to the longest of a batch, a caption's vector would depend on its company.
_PADDED_TO_MAXIMUM = frozenset({"siglip", "siglip2"})
_TOWERS = ("get_image_features", "get_text_features")
_PIXELS = ["pixel_values"]
_PATCHES = ["pixel_values", "pixel_attention_mask", "spatial_shapes"]
# Tokenizers that know no limit report 10^30.
_NO_LIMIT = 1_000_000


def load_model(folder: Path) -> Any:
    """The model of a folder, in float32; code that the folder brings along is never run.

    `BlipForImageTextRetrieval` is asked for by name, since `AutoModel` makes another model of BLIP's configuration.

    Raises:
        ModelError: transformers ships no such class, or weights are missing.
    """
    from transformers import AutoModel, BlipForImageTextRetrieval

    # These register the demo's student, and its teacher whose dual branch can mine, with AutoModel.
    import cprd_pipeline.models.scene_cross_encoder  # noqa: F401
    import cprd_pipeline.models.scene_student  # noqa: F401

    is_itc = "BlipForImageTextRetrieval" in (read_config(folder).get("architectures") or [])
    model_class = BlipForImageTextRetrieval if is_itc else AutoModel
    try:
        with without_bars():
            model, notes = model_class.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
    except loading_failures() as error:
        raise ModelError(f"{folder}: cannot be loaded ({first_line(error)})", expected="a model folder of transformers") from error
    missing = sorted(notes["missing_keys"])
    if missing:
        # transformers would go on with random numbers in their place.
        raise ModelError(
            f"{folder}: {len(missing)} weights are missing (first: {missing[0]})",
            expected=f"all weights of {type(model).__name__}",
            do="download the model again, or name the folder of a dual encoder",
        )
    return model


def load_encoder_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder.

    Raises:
        MissingDependencyError: SigLIP's needs SentencePiece, and that is not installed.
        ModelError: There is none, or it cannot be loaded.
    """
    try:
        return load_tokenizer(folder)
    except ImportError as error:
        reason = first_line(error)
        raise MissingDependencyError(
            f"{folder}: its tokenizer needs a package that is missing ({reason})", do="pip install 'cprd-pipeline[encoders]'"
        ) from error


def check_towers(model: Any) -> None:
    """Refuse what has no image tower or no text tower.

    Raises:
        ModelError: The model is not a dual encoder.
    """
    lacking = [part for part in _TOWERS if not hasattr(model, part)]
    if lacking and not is_blip(model):
        raise ModelError(
            f"{type(model).__name__} is not a dual encoder: it has no {', '.join(lacking)}",
            expected="a CLIP-like model (CLIP, SigLIP, AltCLIP, VisionTextDualEncoder) or BLIP's retrieval model",
        )


def check_image_processor(image_processor: Any) -> None:
    """Refuse image processors that other machines lack, or whose output the towers do not take.

    Raises:
        ModelError: Not of Pillow's kind, or it makes more than pixels or patches.
    """
    check_backend(image_processor)
    if list(image_processor.model_input_names) not in (_PIXELS, _PATCHES):
        raise ModelError(
            f"image processor {type(image_processor).__name__} gives {', '.join(image_processor.model_input_names)}",
            expected="pixel_values of one size, or the patches of SigLIP 2 NaFlex",
        )


def check_backend(image_processor: Any) -> None:
    """Refuse image processors of another kind than Pillow's; none at all passes.

    Raises:
        ModelError: Another machine may lack its kind, and would see other pixels.
    """
    if image_processor is not None and getattr(image_processor, "backend", None) != "pil":
        raise ModelError(
            f"image processor {type(image_processor).__name__} does not work with Pillow",
            expected="a Pillow image processor (...Pil), so that all machines see the same pixels",
        )


def makes_patches(image_processor: Any) -> bool:
    """Whether pictures keep their shape (SigLIP 2 NaFlex): as many patches each as fit, padded to one number."""
    return list(image_processor.model_input_names) == _PATCHES


def pads_to_maximum(model: Any) -> bool:
    """Whether captions are padded to the full length and read without a mask."""
    return model.config.model_type in _PADDED_TO_MAXIMUM


def max_text_tokens(model: Any, tokenizer: Any) -> int:
    """Longest caption in tokens, special ones included: what tokenizer and position embeddings allow.

    Raises:
        ModelError: Neither says, or the tokenizer cannot pad.
    """
    positions = int(getattr(getattr(model.config, "text_config", model.config), "max_position_embeddings", _NO_LIMIT))
    longest = int(tokenizer.model_max_length)
    if min(positions, longest) >= _NO_LIMIT:
        raise ModelError(f"{type(tokenizer).__name__}: its longest caption is not known", expected="model_max_length")
    if tokenizer.pad_token_id is None:
        raise ModelError(f"{type(tokenizer).__name__}: it has no padding token", expected="pad_token")
    return min(positions - _reserved_positions(model), longest)


def _reserved_positions(model: Any) -> int:
    """Rows of the position embeddings that no token of a caption has.

    RoBERTa's kin (AltCLIP's XLM-R among them) count positions from behind the padding token's id.
    """
    text = getattr(model, "text_model", model)
    for name, module in text.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.padding_idx + 1
    return 0
