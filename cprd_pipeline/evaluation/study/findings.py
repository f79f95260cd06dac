"""What came out about the paper's findings, in sentences with the numbers that they are from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cprd_pipeline.evaluation.study.bands import REST, VALID
from cprd_pipeline.evaluation.study.comparison import Comparison
from cprd_pipeline.evaluation.study.settings import Claim, StudySettings
from cprd_pipeline.evaluation.study.shapes import Shape, normal_shares
from cprd_pipeline.evaluation.study.text import p_value, signed, with_interval

Verdict = Literal["shows", "does not show", "the opposite shows", "not measured"]


@dataclass(frozen=True)
class Finding:
    """One of the paper's statements, on this data.

    Args:
        text: The statement.
        verdict: Whether it shows here.
        numbers: What that is judged by.
    """

    text: str
    verdict: Verdict
    numbers: str


def findings_of(
    settings: StudySettings, comparisons: Sequence[Comparison], shapes: dict[str, Shape], bands: dict[str, Any]
) -> list[dict[str, str]]:
    """The shape of the distributions, where the teacher's order is true, and the claims.

    Args:
        settings: Arms and claims.
        comparisons: Of the arms.
        shapes: Of the teacher's scores and the student's similarities.
        bands: From `band_results`.
    """
    found = [_concentrated(shapes), *([_knowledge(bands["truth"])] if bands["truth"] else [])]
    return [asdict(one) for one in [*found, *(_claimed(settings, claim, comparisons) for claim in settings.claims)]]


def _concentrated(shapes: dict[str, Shape]) -> Finding:
    teacher, student = shapes["teacher"], shapes["student"]
    less_normal = abs(teacher.excess_kurtosis) + abs(teacher.skewness) > abs(student.excess_kurtosis) + abs(student.skewness)
    shown = teacher.top_share > student.top_share and less_normal
    numbers = "; ".join(
        f"{name}: skewness {signed(one.skewness, 2)}, excess kurtosis {signed(one.excess_kurtosis, 2)}, "
        f"fullest bin {one.top_share:.1%}"
        for name, one in (("teacher", teacher), ("student", student))
    )
    return Finding(
        "the teacher's scores are concentrated, the dual encoder's similarities nearly normal",
        "shows" if shown else "does not show",
        f"{numbers} (normal: 0, 0, {max(normal_shares()):.1%})",
    )


def _knowledge(truth: dict[str, Any]) -> Finding:
    text = "the teacher's order is true among valid hard negatives more than among the rest"
    if truth["valid_from_rest"] is None:
        return Finding(text, "not measured", "no two of them differ in their true relevance")
    difference, low, high = truth["valid_from_rest"]
    numbers = (
        f"agreement with the true relevance {signed(truth['bands'][VALID], 2)} and {signed(truth['bands'][REST], 2)}, "
        f"difference {signed(difference, 2)} [{signed(low, 2)}, {signed(high, 2)}] over lists"
    )
    return Finding(text, _verdict(difference, clear=low > 0 or high < 0), numbers)


def _claimed(settings: StudySettings, claim: Claim, comparisons: Sequence[Comparison]) -> Finding:
    wanted = (claim.better, claim.worse, claim.by)
    one = next((one for one in comparisons if (one.more, one.less, one.by) == wanted), None)
    if one is None:
        return Finding(claim.text, "not measured", "an arm has no gradient cosine; set cosine_steps in shared")
    arms = f"{settings.arms[claim.better].label} \N{MINUS SIGN} {settings.arms[claim.worse].label}"
    what, digits = ("RSUM", 1) if claim.by == "rsum" else ("gradient cosine", 2)
    numbers = f"{arms}: {what} {with_interval(one, digits)}, p {p_value(one.p)}"
    return Finding(claim.text, _verdict(one.difference, clear=one.clear), numbers)


def _verdict(difference: float, *, clear: bool) -> Verdict:
    if not clear:
        return "does not show"
    return "shows" if difference > 0 else "the opposite shows"
