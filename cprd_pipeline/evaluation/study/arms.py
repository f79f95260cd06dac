"""Figures of each arm of a study, seed by seed, and of the teacher."""

from statistics import mean
from typing import Any

from cprd_pipeline.evaluation.reality import RSUM
from cprd_pipeline.evaluation.study.evaluation import Evaluated
from cprd_pipeline.evaluation.study.settings import StudySettings

_NDCG = {"ndcg10": "graded nDCG@10", "binary_ndcg10": "nDCG@10"}
"""Against the true relevance where it is known, otherwise with every positive worth the same."""


def arm_results(settings: StudySettings, evaluated: Evaluated, chosen: Evaluated | None) -> dict[str, Any]:
    """For the report.

    Args:
        settings: Arms and seeds.
        evaluated: All students.
        chosen: The same on the split that settings were chosen on.

    Returns:
        `arms`: a list with `name`, `label`, `rsum` and `chosen_rsum` by seed, `ndcg` as means over the seeds, i2t and t2i.
        `teacher`: its own figures; None without them. `ndcg`: which one that is.
    """
    figures = next(iter(evaluated.metrics.values()))
    kind = next(name for name in _NDCG if f"i2t_{name}" in figures)
    arms = []
    for arm, one in settings.arms.items():
        ndcg = [mean(evaluated.figure(f"{side}_{kind}", arm, settings.seeds)) for side in ("i2t", "t2i")]
        found = {
            "name": arm,
            "label": one.label,
            "rsum": evaluated.figure(RSUM, arm, settings.seeds),
            "chosen_rsum": chosen.figure(RSUM, arm, settings.seeds) if chosen else None,
            "ndcg": [round(value, 4) for value in ndcg],
        }
        arms.append(found)
    teacher = None
    if evaluated.teacher is not None:
        label = f"teacher, top {evaluated.settings.rerank_depth} of {evaluated.settings.reranked}"
        ndcg = [evaluated.teacher[f"{side}_{kind}"] for side in ("i2t", "t2i")]
        teacher = {"label": label, "rsum": evaluated.teacher[RSUM], "ndcg": ndcg}
    return {"arms": arms, "teacher": teacher, "ndcg": _NDCG[kind]}
