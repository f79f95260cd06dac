"""Settings of the command `study`: which arms are trained over which seeds, and what is compared."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from cprd_pipeline.errors import SettingsError
from cprd_pipeline.settings import NonNegativeInt, PositiveInt, ReportPath, Settings, StageSettings

Changes = dict[str, Any]
"""Settings by name, dots for groups: what stands left and right of the equals sign of `--set`."""

ArmName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$", max_length=40)]
"""Without hyphens, so that `<arm>-<seed>` names one student."""


Measure = Literal["rsum", "gradient_cosine"]
"""RSUM of the split that is evaluated; the cosine between the gradients of the two parts of the loss, mean over the steps."""


class Arm(Settings):
    """One way to train a student.

    Args:
        label: What tables call it.
        set: What it changes of the settings that all arms share; lists and groups by their dotted names.
    """

    label: str
    set: Changes = Field(default_factory=dict)


class Claim(Settings):
    """A finding, as the difference between two arms that would show it.

    Args:
        text: The finding, as a sentence without its full stop.
        better: The arm that should have more.
        worse: The arm that should have less.
        by: More of what.
    """

    text: str
    better: str
    worse: str
    by: Measure = "rsum"


class StudySettings(StageSettings):
    """The command `study`: arms, seeds, and what is made of them; stages/study/study.yaml explains each."""

    training: Path = Path("stages/distill.yaml")
    shared: Changes = Field(default_factory=dict)
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=2)]
    arms: Annotated[dict[ArmName, Arm], Field(min_length=2)]
    reference: str
    claims: tuple[Claim, ...] = ()
    evaluation: Path = Path("stages/evaluate.yaml")
    chosen_on: str | None = "val"
    random_pairs: Path = Path("data/rankings/random_test")
    folder: Path = Path("data/study")
    replicates: PositiveInt = 10_000
    report: ReportPath = Path("data/reports/study.json")
    markdown: Path = Path("data/reports/study.md")
    page: Path = Path("data/reports/study.html")

    @model_validator(mode="after")
    def _names_fit(self) -> "StudySettings":
        named = [self.reference, *(arm for claim in self.claims for arm in (claim.better, claim.worse))]
        for arm in named:
            if arm not in self.arms:
                raise ValueError(f"{arm!r} is none of the arms {', '.join(self.arms)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {', '.join(map(str, self.seeds))}: one stands there twice")
        labels = [arm.label for arm in self.arms.values()]
        if len(set(labels)) < len(labels):
            raise ValueError(f"labels {', '.join(labels)}: one stands there twice")
        return self

    def student(self, arm: str, seed: int) -> Path:
        """Folder of one student."""
        return self.folder / "students" / student_name(arm, seed)

    def training_overrides(self, arm: str, seed: int) -> list[str]:
        """What `--set` would say to train one student from the settings in `training`.

        Raises:
            SettingsError: There is no such arm.
        """
        if arm not in self.arms:
            raise SettingsError(f"--train {arm}: no such arm", expected=f"one of {', '.join(self.arms)}")
        own = {"seed": seed, "output": str(self.student(arm, seed))}
        own["report"] = str(self.folder / "reports" / f"{student_name(arm, seed)}.json")
        return [f"{name}={json.dumps(value)}" for name, value in (self.shared | self.arms[arm].set | own).items()]


def student_name(arm: str, seed: int) -> str:
    """What evaluation calls one student."""
    return f"{arm}-{seed}"
