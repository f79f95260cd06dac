"""Arms against each other: differences paired by seed, each with what chance may have done to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cprd_pipeline.evaluation.outcomes import Outcome
from cprd_pipeline.evaluation.reality import RSUM, Protocol, compare
from cprd_pipeline.evaluation.study.evaluation import Evaluated
from cprd_pipeline.evaluation.study.seeds import SeedDifference, seed_difference
from cprd_pipeline.evaluation.study.settings import Measure, StudySettings
from cprd_pipeline.metrics.significance import holm

ALPHA = 0.05
"""What a corrected p may be at most for a difference that counts."""

Cosines = Mapping[str, Sequence[float]]
"""Mean gradient cosine of each arm that has one, seed by seed."""


@dataclass(frozen=True)
class Comparison:
    """How much more one arm has than another one.

    Args:
        more: The arm from whose values the others' are subtracted.
        less: The other arm.
        by: Which value.
        by_seed: The differences.
        difference: Their mean.
        low: Low end of the 95 % interval over seeds, this test set given.
        high: High end of it.
        images: 95 % interval over test images, these seeds given; None for cosines, which are of training.
        p: Of the paired t test over seeds, two-sided, corrected for all comparisons of the study (Holm).
    """

    more: str
    less: str
    by: Measure
    by_seed: list[float]
    difference: float
    low: float
    high: float
    images: list[float] | None
    p: float

    @property
    def clear(self) -> bool:
        """Whether chance is ruled out, so far as a test can do that."""
        return self.p <= ALPHA


def compare_arms(settings: StudySettings, evaluated: Evaluated, cosines: Cosines) -> list[Comparison]:
    """Each arm with the reference, then the pairs of the claims.

    Args:
        settings: Arms, reference and claims.
        evaluated: All students.
        cosines: Of the gradients; a claim about an arm without one is left out.
    """
    wanted: list[tuple[str, str, Measure]] = [
        (arm, settings.reference, "rsum") for arm in settings.arms if arm != settings.reference
    ]
    wanted += [(claim.better, claim.worse, claim.by) for claim in settings.claims]
    pairs = [pair for pair in dict.fromkeys(wanted) if pair[2] == "rsum" or {pair[0], pair[1]} <= set(cosines)]
    values = {arm: evaluated.figure(RSUM, arm, settings.seeds) for arm in settings.arms}
    means = {arm: _mean(arm, [evaluated.outcome(arm, seed) for seed in settings.seeds]) for arm in settings.arms}
    protocol = Protocol(settings.replicates, 0)
    found = []
    for more, less, by in pairs:
        of = values if by == "rsum" else cosines
        by_seed = [ours - theirs for ours, theirs in zip(of[more], of[less], strict=True)]
        over = SeedDifference(*(round(number, 6) for number in seed_difference(by_seed)))
        images = _over_images(means[less], means[more], protocol) if by == "rsum" else None
        rounded = [round(value, 4) for value in by_seed]
        found.append(Comparison(more, less, by, rounded, over.mean, over.low, over.high, images, over.p))
    corrected = holm(np.array([one.p for one in found]))
    return [replace(one, p=p) for one, p in zip(found, corrected.tolist(), strict=True)]


def _over_images(less: Outcome, more: Outcome, protocol: Protocol) -> list[float]:
    (one,) = compare(less, more, protocol, [RSUM])
    return [round(one.interval.low, 4), round(one.interval.high, 4)]


def _mean(arm: str, outcomes: Sequence[Outcome]) -> Outcome:
    """Values of each query averaged over the seeds."""
    i2t, t2i = (
        replace(versions[0], values={name: np.mean([one.values[name] for one in versions], axis=0) for name in versions[0].values})
        for versions in zip(*(outcome.directions for outcome in outcomes), strict=True)
    )
    return Outcome(arm, (i2t, t2i))
