"""What a BLIP-2 folder holds: reading its parts, checking that they fit, and what its configuration allows."""

from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from transformers import Blip2ForImageTextRetrieval

from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.blip_folder import Score
from cprd_pipeline.models.loading import load_whole, read_config
from cprd_pipeline.models.preprocessing import Pixels, load_image_processor, load_tokenizer

_EXPECTED = "BLIP-2 with its matching head, such as Salesforce/blip2-itm-vit-g"

# Default of Blip2QFormerConfig, which a config.json may leave out.
_DEFAULT_POSITIONS = 512


class Blip2Options(NamedTuple):
    """What the settings decide about a BLIP-2 teacher.

    Args:
        score: See `Score`; the match logit is the mean over the queries, the cosine that of the nearest query.
        max_text_tokens: Longest caption in tokens; null for the model's own limit.
    """

    score: Score = "margin"
    max_text_tokens: int | None = None


class Blip2Parts(NamedTuple):
    """A model with what turns captions and pictures into its inputs."""

    model: Blip2ForImageTextRetrieval
    tokenizer: Any
    image_processor: Any


def load_parts(folder: Path) -> Blip2Parts:
    """Read a folder.

    Raises:
        ModelError: A part is missing, or does not fit the others.
    """
    # Without its text side the Q-Former would be built and loaded in silence, and could read no caption.
    if not read_config(folder).get("qformer_config", {}).get("use_qformer_text_input", False):
        raise ModelError(f"{folder}: use_qformer_text_input is not true in its Q-Former's configuration", expected=_EXPECTED)
    model = load_whole(Blip2ForImageTextRetrieval, folder, _EXPECTED, attn_implementation="sdpa")
    parts = Blip2Parts(model, load_tokenizer(folder), load_image_processor(folder))
    _check_fit(folder, parts)
    return parts


def text_positions(folder: Path) -> int:
    """Rows of the position embeddings from config.json, without the weights."""
    return int(read_config(folder).get("qformer_config", {}).get("max_position_embeddings", _DEFAULT_POSITIONS))


def _check_fit(folder: Path, parts: Blip2Parts) -> None:
    # The vision tower takes a smaller picture too, and gives its patches the wrong positions.
    found, wanted = Pixels(parts.image_processor)(Image.new("RGB", (48, 36))).shape[1:], parts.model.config.vision_config.image_size
    if tuple(found) != (wanted, wanted):
        raise ModelError(
            f"{folder}: its image processor makes pictures of {found[0]} x {found[1]}", expected=f"{wanted} x {wanted}"
        )
