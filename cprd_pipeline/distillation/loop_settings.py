"""Settings of what surrounds the objective: which pairs meet, how scored candidates reach the loss, what is trained and how."""

from typing import Annotated, Literal

from pydantic import Field

from cprd_pipeline.settings import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Settings, Share


class TwoTowers(Settings):
    """A student put together from a vision tower and a text tower.

    Args:
        vision: Folder or hub name of a vision model.
        text: Folder or hub name of a text model.
        projection_dim: Width of the shared space.
    """

    vision: str
    text: str
    projection_dim: PositiveInt = 512


class Neighbours(Settings):
    """Batches of pairs that the teacher knows of each other.

    Args:
        known_share: Share of a batch's pairs that the teacher shall have scored; groups of mutual neighbours are made as large
            as that takes. 0: batches are drawn at random.
        random_share: Share of each batch that is drawn at random all the same.
    """

    known_share: Share = 0.0
    random_share: Share = 0.25


class Unpaired(Settings):
    """Images without captions and captions without images.

    Args:
        share: Of each batch; 0 leaves them out.
        split: Where they are; null for the split that is trained on. Of another split all items count as unpaired that no
            annotation of that split pairs.
        positive: `softmax`: drawn from the teacher's softmax over the query's scored items; `top1`: the highest of them;
            `none`: of the two losses only the ranking loss has
            such a query; to the others it is a negative as any item is.
        temperature: Of that softmax.
        floor: Lowest teacher score of a positive; a query with nothing above it takes no part (except with `none`).
    """

    share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    split: str | None = None
    positive: Literal["softmax", "top1", "none"] = "softmax"
    temperature: PositiveFloat = 0.5
    floor: float = Field(default=0.0, allow_inf_nan=False)


class Encode(Settings):
    """Candidates that are encoded with the batch, with gradients.

    Args:
        candidates: Drawn a query and step.
        among: Of its list, best first, so many take part in the draw.
    """

    candidates: PositiveInt = 4
    among: PositiveInt = 64


class Bank(Settings):
    """Features of the whole corpus that stay from earlier steps; float16.

    Args:
        candidates: Of a query's list, best first, so many are compared with it.
        features: `computed`: of the step that last encoded the item; `momentum`: encoded by the moving average of the weights.
        easy: Random items that every query of a step has in common, when easy negatives come from the bank.
        memory_gb: A bank (of images, of captions) larger than this lies in a memory-mapped file.
    """

    candidates: PositiveInt = 64
    features: Literal["computed", "momentum"] = "computed"
    easy: NonNegativeInt = 256
    memory_gb: NonNegativeFloat = 2.0


class Lora(Settings):
    """Low-rank adapters instead of all weights; merged into the weights when the student is saved.

    Args:
        rank: Of each adapter.
        alpha: Adapters are scaled by alpha / rank.
        dropout: On their inputs.
        targets: Names of the linear layers, or `all-linear`.
    """

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"


class Augmentation(Settings):
    """Changes of pictures and captions while training; 0 switches one off.

    Args:
        shift_pixels: Largest shift in each direction, the border repeated.
        noise: Standard deviation of pixel noise, of 255.
        channel_gain: Largest relative change of a colour channel.
        brightness: Largest change of all channels, as a share of half the pixel range.
        word_dropout: Share of words left out of a caption; one always stays.
    """

    shift_pixels: NonNegativeInt = 0
    noise: NonNegativeFloat = 0.0
    channel_gain: Share = 0.0
    brightness: Share = 0.0
    word_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
