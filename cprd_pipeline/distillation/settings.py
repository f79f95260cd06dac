"""Settings of the stage `distill`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cprd_pipeline.distillation.loop_settings import Augmentation, Bank, Encode, Lora, Neighbours, TwoTowers, Unpaired
from cprd_pipeline.distillation.objective_settings import (
    CprdSettings,
    KlSettings,
    ListMleSettings,
    ListNetSettings,
    MarginMseSettings,
    RankNetSettings,
)
from cprd_pipeline.distillation.schedule import check_warmup
from cprd_pipeline.settings import (
    Beta,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ReportPath,
    Seed,
    StageSettings,
)

Metric = Literal["rsum", "i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10"]
"""What evaluation during training may be judged by; higher is better."""


class DistillSettings(StageSettings):
    """Stage `distill`: every knob of one student's training; stages/distill.yaml explains each."""

    corpus: Path = Path("data/corpus")
    split: str = "train"
    rankings: tuple[Path, ...] = ()
    student: str | TwoTowers = "scenes"
    output: Path = Path("data/students/cprd")
    report: ReportPath = Path("data/reports/distill.json")

    objective: Literal["itc", "cprd", "kl", "margin_mse", "listnet", "listmle", "ranknet"] = "cprd"
    contrastive: Literal["itc", "sigmoid"] = "itc"
    sigmoid_bias: float = Field(default=-10.0, allow_inf_nan=False)
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
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

    items: Literal["in_batch", "encode", "bank"] = "in_batch"
    encode: Encode = Encode()
    bank: Bank = Bank()
    captions_per_image: PositiveInt | Literal["all"] = 1
    neighbours: Neighbours = Neighbours()
    unpaired: Unpaired = Unpaired()

    seed: Seed = 0
    batch_size: Annotated[int, Field(ge=2)] = 64
    steps: PositiveInt = 2400
    learning_rate: PositiveFloat = 2e-3
    warmup_steps: NonNegativeInt = 100
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    weight_decay: NonNegativeFloat = 1.0
    decay: Literal["all", "weights"] = "all"
    clip_norm: PositiveFloat | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    largest_scale: PositiveFloat = 100.0
    augmentation: Augmentation = Augmentation()

    micro_batch: PositiveInt | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    freeze: tuple[Literal["vision", "text"], ...] = ()
    lora: Lora | None = None

    eval_steps: PositiveInt | None = None
    eval_split: str = "val"
    eval_metric: Metric = "rsum"
    keep: Literal["last", "best"] = "last"
    patience: PositiveInt | None = None
    cosine_steps: PositiveInt | None = None
    tensorboard: Path | None = None

    checkpoint_steps: PositiveInt = 200
    log_steps: PositiveInt = 50
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
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
        if self.objective != "itc" and self.distillation_from_step >= self.steps:
            raise ValueError(
                f"distillation begins at step {self.distillation_from_step} of {self.steps}, so that the teacher would never be "
                "heard; lower distillation_from_step"
            )
        return self

    @model_validator(mode="after")
    def _output_is_not_its_own_beginning(self) -> "DistillSettings":
        towers = (self.student,) if isinstance(self.student, str) else (self.student.vision, self.student.text)
        if any(Path(begin).absolute() == self.output.absolute() for begin in towers):
            raise ValueError(f"output is {self.output}, with which training begins and which is not overwritten; name another")
        return self

    @model_validator(mode="after")
    def _smoothing_has_its_labels(self) -> "DistillSettings":
        if self.contrastive == "sigmoid" and self.label_smoothing:
            raise ValueError("label_smoothing spreads the target of contrastive itc; the sigmoid loss has none, set it to 0")
        return self

    @model_validator(mode="after")
    def _items_have_their_rankings(self) -> "DistillSettings":
        wanted = {
            f"items {self.items}": self.items != "in_batch",
            "neighbours.known_share": self.neighbours.known_share > 0,
            "unpaired.share": self.unpaired.share > 0,
        }
        for name in (name for name, is_wanted in wanted.items() if is_wanted and self.objective == "itc"):
            raise ValueError(f"{name} needs the teacher's scores, and objective itc has none; choose another objective")
        easy = {"cprd": self.cprd.easy_negatives, "kl": self.kl.easy_negatives}.get(self.objective)
        if easy == "bank" and self.items != "bank":
            raise ValueError(f"{self.objective}.easy_negatives bank needs a bank; set items to bank")
        if self.items == "bank" and self.bank.features == "momentum" and not self.ema:
            raise ValueError("bank.features momentum needs a moving average of the weights; set ema")
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

    @model_validator(mode="after")
    def _something_is_trained(self) -> "DistillSettings":
        if self.contrastive_weight:
            return self
        if self.objective == "itc":
            raise ValueError(
                "contrastive_weight is 0 and objective itc has no other loss, so that nothing would be learned; raise it"
            )
        if not self.distillation_weight:
            raise ValueError("contrastive_weight and distillation_weight are both 0, so that nothing would be learned; raise one")
        return self

    @model_validator(mode="after")
    def _the_warmup_ends(self) -> "DistillSettings":
        check_warmup(self.warmup_steps, self.steps)
        return self

    def shaping(self) -> dict[str, object]:
        """The settings that shape the student's bytes: no paths, no device, no speed."""
        where = {"corpus", "rankings", "output", "report", "student", "device", "workers", "pixel_cache_gb", "checkpoint_steps"}
        where |= {"tensorboard"}
        unused = {"cprd", "kl", "margin_mse", "listnet", "listmle", "ranknet"} - {self.objective}
        unused |= {"encode", "bank"} - {self.items}
        if self.objective == "itc":
            unused |= {"distillation_weight", "distillation_from_step", "shuffle_teacher"}
        unused |= {"sigmoid_bias"} if self.contrastive == "itc" else {"label_smoothing"}
        unused |= set() if self.neighbours.known_share else {"neighbours"}
        unused |= set() if self.unpaired.share else {"unpaired"}
        # What only watches shapes the training log, and only where it is switched on.
        unused |= {name for name in ("eval_steps", "patience", "cosine_steps") if getattr(self, name) is None}
        if self.eval_steps is None:
            unused |= {"eval_split", "eval_metric", "keep"}
        return {key: value for key, value in self.as_json().items() if key not in where | unused}
