"""What a FLAVA folder holds: the parts that matching needs, checking that they fit, and what the settings come down to."""

from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from transformers import FlavaConfig, FlavaImageProcessorPil, FlavaModel, FlavaPreTrainedModel
from transformers.models.flava.modeling_flava import FlavaITMHead

from cprd_pipeline.errors import ModelError, SettingsError
from cprd_pipeline.models.captions import text_limit
from cprd_pipeline.models.loading import load_whole, read_config
from cprd_pipeline.models.preprocessing import load_image_processor, load_tokenizer

_EXPECTED = "FLAVA with its matching head, such as facebook/flava-full"

# Default of FlavaTextConfig, which a config.json may leave out.
_DEFAULT_POSITIONS = 512


class FlavaOptions(NamedTuple):
    """What the settings decide about a FLAVA teacher.

    Args:
        score: What counts, as in `TeacherChoice`; there is no published sum with the contrastive head.
        max_text_tokens: Longest caption in tokens; null for the model's own limit.
    """

    score: Literal["margin", "match_logit", "match_logit+itc"] = "margin"
    max_text_tokens: int | None = None


class FlavaMatcher(FlavaPreTrainedModel):  # type: ignore[misc]
    """FlavaForPreTraining without what matching does not use: the image codebook and the heads of the masked losses.

    Args:
        config: Of the whole model.
    """

    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^image_codebook\.", r"^(mim|mlm|mmm_image|mmm_text)_head\."]

    def __init__(self, config: FlavaConfig) -> None:
        super().__init__(config)
        self.flava = FlavaModel(config)
        self.itm_head = FlavaITMHead(config)
        self.post_init()


class FlavaParts(NamedTuple):
    """A model with what turns captions and pictures into its inputs."""

    model: FlavaMatcher
    tokenizer: Any
    image_processor: FlavaImageProcessorPil


def load_parts(folder: Path) -> FlavaParts:
    """Read a folder.

    Raises:
        ModelError: A part is missing, or does not fit the others.
    """
    parts = FlavaParts(load_whole(FlavaMatcher, folder, _EXPECTED), load_tokenizer(folder), load_image_processor(folder))
    _check_fit(folder, parts)
    return parts


def text_positions(folder: Path) -> int:
    """Rows of the text tower's position embeddings, from config.json."""
    return int((read_config(folder).get("text_config") or {}).get("max_position_embeddings", _DEFAULT_POSITIONS))


def resolve(tokenizer: Any, positions: int, chosen: FlavaOptions) -> dict[str, Any]:
    """The options with their defaults spelled out.

    Raises:
        SettingsError: The model cannot do what the settings ask for.
    """
    if chosen.score == "match_logit+itc":
        raise SettingsError(
            f"teacher.score is {chosen.score}", expected="margin or match_logit: FLAVA's contrastive head adds nothing"
        )
    return {"score": chosen.score, "max_text_tokens": text_limit(tokenizer, positions, chosen.max_text_tokens)}


def _check_fit(folder: Path, parts: FlavaParts) -> None:
    processor, wanted = parts.image_processor, parts.model.config.image_config.image_size
    size = processor.crop_size if processor.do_center_crop else processor.size
    height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
    if (size["height"], size["width"]) != (height, width):
        raise ModelError(
            f"{folder}: its image processor makes pictures of {size['height']} x {size['width']}", expected=f"{height} x {width}"
        )
