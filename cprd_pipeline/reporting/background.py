"""How sure the figures are, and how near the students came to the teacher's order: from the evaluation's report."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cprd_pipeline.errors import StoreError

Bounds = tuple[float, float]


class Band(BaseModel):
    """Part of the teacher's order.

    Args:
        first: First rank.
        last: Last rank.
        kendall_tau: Of the student's order of these candidates with the teacher's; None where no list has two of them.
    """

    model_config = ConfigDict(frozen=True)

    first: int = Field(alias="from")
    last: int = Field(alias="to")
    kendall_tau: float | None


class Agreement(BaseModel):
    """Of one student with the teacher, in one direction; None where there are no lists.

    Args:
        kendall_tau: Mean over the lists.
        ndcg10: Of the student's order, gains by the teacher's scores; percent.
        bands: By rank of the teacher, best first.
        kendall_tau_interval: Its 95 % interval.
        ndcg10_interval: Its 95 % interval.
    """

    model_config = ConfigDict(frozen=True)

    kendall_tau: float | None
    ndcg10: float | None
    bands: tuple[Band, ...]
    kendall_tau_interval: Bounds | None = None
    ndcg10_interval: Bounds | None = None


class JudgedSet(BaseModel):
    """Of a set that people judged: the 95 % intervals of each student's figures."""

    model_config = ConfigDict(frozen=True)

    intervals: dict[str, dict[str, Bounds]] = Field(default_factory=dict)


class Background(BaseModel):
    """What the evaluation's report holds beside the figures.

    Args:
        intervals: 95 % interval of each model's figures.
        clearly_best: Figure to the student that is better in it than every other one beyond chance.
        agreement: With the teacher, by student and direction.
        judged: Sets that people judged, by name.
    """

    model_config = ConfigDict(frozen=True)

    intervals: dict[str, dict[str, tuple[float, float]]] = Field(default_factory=dict)
    clearly_best: dict[str, str] = Field(default_factory=dict)
    agreement: dict[str, dict[str, Agreement]] = Field(default_factory=dict)
    judged: dict[str, JudgedSet] = Field(default_factory=dict)

    def interval(self, model: str, figure: str) -> tuple[float, float] | None:
        """Of one figure; None when it is not known."""
        return self.intervals.get(model, {}).get(figure)


NO_BACKGROUND = Background()


def read_background(name: str, results: dict[str, Any]) -> Background:
    """From the results of an evaluation's report.

    Args:
        name: Of the report, for the message.
        results: Of the report.

    Raises:
        StoreError: Something of it has another form.
    """
    try:
        return Background.model_validate({key: results[key] for key in Background.model_fields if key in results})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"the report {name}: {where}: {first['msg']}", do="run evaluate again with this version") from None
