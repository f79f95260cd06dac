"""What a BLIP folder holds: reading its parts, checking that they fit, and what its configuration allows."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from transformers import BlipForImageTextRetrieval, BlipImageProcessorPil

from cprd_pipeline.errors import ModelError, SettingsError
from cprd_pipeline.models.loading import load_whole, read_config
from cprd_pipeline.models.preprocessing import load_image_processor, load_tokenizer

FirstToken = Literal["cls", "enc"]
"""What stands in token 0: `cls` as transformers leaves it, `enc` as in BLIP's published retrieval evaluation."""

Score = Literal["margin", "match_logit", "match_logit+itc"]
"""Match minus no-match logit; the match logit; that plus the cosine of the contrastive head, as published."""

_EXPECTED = "BLIP with its matching head, such as Salesforce/blip-itm-base-coco"

# Defaults of BlipTextConfig, which a config.json may leave out.
_DEFAULT_POSITIONS, _DEFAULT_VOCABULARY = 512, 30_524


class BlipOptions(NamedTuple):
    """What the settings decide about a BLIP teacher.

    Args:
        score: See `Score`.
        first_token: See `FirstToken`.
        max_text_tokens: Longest caption in tokens; null for the model's own limit.
    """

    score: Score = "margin"
    first_token: FirstToken = "cls"
    max_text_tokens: int | None = None


class BlipParts(NamedTuple):
    """A model with what turns captions and pictures into its inputs."""

    model: BlipForImageTextRetrieval
    tokenizer: Any
    image_processor: BlipImageProcessorPil


class TextShape(NamedTuple):
    """Rows of the text encoder's position and word embeddings."""

    positions: int
    vocabulary: int


def load_parts(folder: Path) -> BlipParts:
    """Read a folder.

    Raises:
        ModelError: A part is missing, or does not fit the others.
    """
    model = load_whole(BlipForImageTextRetrieval, folder, _EXPECTED)
    parts = BlipParts(model, load_tokenizer(folder), load_image_processor(folder))
    _check_fit(folder, parts)
    return parts


def text_shape(folder: Path) -> TextShape:
    """Sizes from config.json, without the weights."""
    text = read_config(folder).get("text_config", {})
    return TextShape(text.get("max_position_embeddings", _DEFAULT_POSITIONS), text.get("vocab_size", _DEFAULT_VOCABULARY))


def first_id(tokenizer: Any, vocabulary: int, first_token: FirstToken) -> int | None:
    """Id that replaces token 0; None leaves it.

    Raises:
        SettingsError: [ENC] is wanted, and there is none.
    """
    if first_token == "cls":
        return None
    known = tokenizer.get_vocab()
    if "[ENC]" in known:
        return int(known["[ENC]"])
    # The published checkpoints extend BERT's words by [DEC] and [ENC], which their tokenizers on the hub do not name.
    if len(known) > vocabulary - 2:
        raise SettingsError("teacher.first_token is enc, and this teacher has no [ENC]", do="set it to cls")
    return vocabulary - 1


def _check_fit(folder: Path, parts: BlipParts) -> None:
    if not parts.model.config.text_config.is_decoder:
        raise ModelError(f"{folder}: is_decoder is false in its text configuration", expected="true: it adds the cross-attention")
    size, wanted = parts.image_processor.size, parts.model.config.vision_config.image_size
    if (size["height"], size["width"]) != (wanted, wanted):
        raise ModelError(
            f"{folder}: its image processor makes pictures of {size['height']} x {size['width']}", expected=f"{wanted} x {wanted}"
        )
