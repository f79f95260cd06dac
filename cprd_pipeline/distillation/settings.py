"""Settings of the stage `distill`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

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


class ListSettings(Settings):
    """What every objective over the teacher's lists has.

    Args:
        student_temperature: Divides the student's similarities; null shares the contrastive loss's learned temperature.
        positive_in_list: One positive of the query takes its place in the list.
    """

    student_temperature: PositiveFloat | None = None
    positive_in_list: bool = True


class CprdSettings(ListSettings):
    """The CPRD objective; DESIGN of each choice in the README.

    Args:
        weights: `soft`: the teacher's softmax over the list; `hard`: 1 / list length; `normalised`: 1 / valid items.
        valid: `listed`: every listed item carries knowledge; `rankings`: those that reach the ranking's valid_cutoff.
        teacher_temperature: Of the softmax of `soft`.
        easy_negatives: `in_batch`: the rest of the batch joins every denominator; `none`.
    """

    weights: Literal["soft", "hard", "normalised"] = "soft"
    valid: Literal["listed", "rankings"] = "listed"
    teacher_temperature: PositiveFloat = 4.0
    easy_negatives: Literal["in_batch", "none"] = "in_batch"


class KlSettings(ListSettings):
    """The KL objective.

    Args:
        teacher_temperature: Divides the teacher scores.
        standardise: Scores and similarities of a query get mean 0 and deviation 1 before their temperatures divide them;
            a student_temperature of null is then the teacher's.
        easy_negatives: `in_batch`: the rest of the batch counts with teacher probability 0; `none`.
    """

    teacher_temperature: PositiveFloat = 4.0
    standardise: bool = False
    easy_negatives: Literal["in_batch", "none"] = "in_batch"


class MarginMseSettings(Settings):
    """The MarginMSE objective: all candidates of a list against the query's positive, which is always in it.

    Args:
        teacher_temperature: Divides the teacher scores.
        student_temperature: Divides the student's similarities; null shares the contrastive loss's learned temperature.
        standardise: As in `KlSettings`.
    """

    teacher_temperature: PositiveFloat = 1.0
    student_temperature: PositiveFloat | None = None
    standardise: bool = False


class ListNetSettings(ListSettings):
    """The ListNet objective with top-1 probabilities.

    Args:
        teacher_temperature: Divides the teacher scores.
    """

    teacher_temperature: PositiveFloat = 1.0


class ListMleSettings(ListSettings):
    """The ListMLE objective over the whole list."""


class RankNetSettings(ListSettings):
    """The RankNet objective.

    Args:
        weights: Of the pairs of a list: `equal`, or the `difference` of their teacher scores.
    """

    weights: Literal["equal", "difference"] = "equal"


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


Metric = Literal["rsum", "i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10"]
"""What evaluation during training may be judged by; higher is better."""


class DistillSettings(Settings):
    """Stage `distill`: every knob of one student's training; stages/distill.yaml explains each."""

    corpus: Path = Path("data/corpus")
    split: str = "train"
    rankings: tuple[Path, ...] = ()
    student: str | TwoTowers = "scenes"
    output: Path = Path("data/students/cprd")
    report: Path = Path("data/reports/distill.json")

    objective: Literal["itc", "cprd", "kl", "margin_mse", "listnet", "listmle", "ranknet"] = "cprd"
    contrastive: Literal["itc", "sigmoid"] = "itc"
    sigmoid_bias: float = Field(default=-10.0, allow_inf_nan=False)
    contrastive_weight: NonNegativeFloat = 1.0
    distillation_weight: NonNegativeFloat = 4.0
    distillation_from_step: NonNegativeInt = 50
    shuffle_teacher: bool = False
    cprd: CprdSettings = CprdSettings()
    kl: KlSettings = KlSettings()
    margin_mse: MarginMseSettings = MarginMseSettings()
    listnet: ListNetSettings = ListNetSettings()
    listmle: ListMleSettings = ListMleSettings()
    ranknet: RankNetSettings = RankNetSettings()

    seed: NonNegativeInt = 0
    batch_size: Annotated[int, Field(ge=2)] = 64
    steps: PositiveInt = 2400
    learning_rate: PositiveFloat = 2e-3
    warmup_steps: NonNegativeInt = 100
    betas: tuple[Share, Share] = (0.9, 0.98)
    weight_decay: NonNegativeFloat = 1.0
    decay: Literal["all", "weights"] = "all"
    clip_norm: PositiveFloat | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    largest_scale: PositiveFloat = 100.0
    augmentation: Augmentation = Augmentation()

    eval_steps: PositiveInt | None = None
    eval_split: str = "val"
    eval_metric: Metric = "rsum"
    keep: Literal["last", "best"] = "last"
    patience: PositiveInt | None = None
    cosine_steps: PositiveInt | None = None

    checkpoint_steps: PositiveInt = 200
    log_steps: PositiveInt = 50
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    workers: NonNegativeInt = 0
    pixel_cache_gb: NonNegativeFloat = 2.0

    @model_validator(mode="after")
    def _objective_has_its_files(self) -> "DistillSettings":
        if self.objective == "itc" and self.rankings:
            raise ValueError("objective itc learns from no rankings; remove rankings or choose another objective, such as cprd")
        if self.objective == "itc" and self.shuffle_teacher:
            raise ValueError("objective itc has no teacher whose order shuffle_teacher could destroy; choose another objective")
        if self.objective != "itc" and not self.rankings:
            raise ValueError(f"objective {self.objective} needs rankings; name at least one folder")
        return self

    @model_validator(mode="after")
    def _watching_has_what_it_watches(self) -> "DistillSettings":
        if self.eval_steps is None and self.keep == "best":
            raise ValueError("keep best needs evaluations to choose by; set eval_steps")
        if self.eval_steps is None and self.patience is not None:
            raise ValueError("patience counts evaluations; set eval_steps")
        if self.objective == "itc" and self.cosine_steps is not None:
            raise ValueError("objective itc has one loss part, whose gradient cosine_steps could compare with none; set it to null")
        return self

    def shaping(self) -> dict[str, object]:
        """The settings that shape the student's bytes: no paths, no device, no speed."""
        where = {"corpus", "rankings", "output", "report", "student", "device", "workers", "pixel_cache_gb", "checkpoint_steps"}
        unused = {"cprd", "kl", "margin_mse", "listnet", "listmle", "ranknet"} - {self.objective}
        if self.objective == "itc":
            unused |= {"distillation_weight", "distillation_from_step", "shuffle_teacher"}
        if self.contrastive == "itc":
            unused |= {"sigmoid_bias"}
        # What only watches shapes the training log, and only where it is switched on.
        unused |= {name for name in ("eval_steps", "patience", "cosine_steps") if getattr(self, name) is None}
        if self.eval_steps is None:
            unused |= {"eval_split", "eval_metric", "keep"}
        return {key: value for key, value in self.as_json().items() if key not in where | unused}
