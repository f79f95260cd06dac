"""What a BridgeTower folder holds: reading its parts, checking that they fit, and how long its captions may be."""

from pathlib import Path
from typing import Any, NamedTuple

from transformers import BridgeTowerForImageAndTextRetrieval, BridgeTowerImageProcessorPil

from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.loading import load_whole, read_config
from cprd_pipeline.models.preprocessing import load_image_processor, load_tokenizer

_EXPECTED = "BridgeTower with its matching head, such as BridgeTower/bridgetower-base-itm-mlm"

# Defaults of BridgeTowerTextConfig, which a config.json may leave out.
_DEFAULT_POSITIONS, _DEFAULT_PADDING = 514, 1


class BridgeTowerParts(NamedTuple):
    """A model with what turns captions and pictures into its inputs."""

    model: BridgeTowerForImageAndTextRetrieval
    tokenizer: Any
    image_processor: BridgeTowerImageProcessorPil


def load_parts(folder: Path) -> BridgeTowerParts:
    """Read a folder.

    Raises:
        ModelError: A part is missing, or does not fit the others.
    """
    model = load_whole(BridgeTowerForImageAndTextRetrieval, folder, _EXPECTED)
    core = model.bridgetower
    seeing, reading = len(core.vision_model.visual.transformer.resblocks), len(core.text_model.encoder.layer)
    if seeing < reading:
        raise ModelError(f"{folder}: its vision tower has {seeing} layers", expected=f"at least {reading}, as its text tower has")
    image_processor = load_image_processor(folder)
    _crop_to(image_processor, model.config.vision_config.image_size, folder)
    return BridgeTowerParts(model, load_tokenizer(folder), image_processor)


def text_positions(folder: Path) -> int:
    """Position embeddings that a caption may use, from config.json."""
    text = read_config(folder).get("text_config") or {}
    return usable_positions(text.get("max_position_embeddings", _DEFAULT_POSITIONS), text.get("pad_token_id", _DEFAULT_PADDING))


def usable_positions(rows: int, padding: int) -> int:
    """Position embeddings that a caption may use: as in RoBERTa, they begin after the padding token's.

    Args:
        rows: All of them.
        padding: Id of the padding token.
    """
    return rows - padding - 1


def _crop_to(image_processor: Any, wanted: int, folder: Path) -> None:
    """Have every picture cropped to the model's size, or refuse.

    transformers 4 cropped to `size` where a checkpoint leaves `crop_size` out; 5 crops to 288 then, which fits the base model only.
    """
    whole = f"pictures of {wanted} x {wanted}"
    if not image_processor.do_center_crop:
        raise ModelError(f"{folder}: do_center_crop is false in its image processor", expected=f"true: {whole}")
    resized, cropped = (size and size.shortest_edge for size in (image_processor.size, image_processor.crop_size))
    if wanted not in (resized, cropped):
        raise ModelError(f"{folder}: its image processor resizes pictures to {resized} and crops them to {cropped}", expected=whole)
    if cropped != wanted:
        image_processor.crop_size = image_processor.size
