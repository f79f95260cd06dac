"""Whether the teacher's targets still tell items apart: a softmax that is one item and nothing else teaches its order to nobody.

Shape suffixes: Q queries of a batch, N items encoded with it.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.distillation.listing import Listing
from cprd_pipeline.distillation.losses.lists import TeacherLists, masked_softmax
from cprd_pipeline.distillation.losses.standardise import standardise_both
from cprd_pipeline.distillation.meeting import Meetings
from cprd_pipeline.distillation.settings import DistillSettings

_BATCHES = 32
_LEAST_ENTROPY = 0.02
_LARGEST_TOP = 0.99
_FLAT = 1 - 1e-6


class TeacherTargets(NamedTuple):
    """The teacher's softmax over lists of two items and more, on average.

    Args:
        entropy_share: Entropy as a share of the largest that the list could have, 0 to 1.
        top_share: What the highest item of a list takes, 0 to 1.
    """

    entropy_share: float
    top_share: float

    @property
    def collapsed(self) -> bool:
        """Whether next to nothing is left for any item but the first."""
        return self.entropy_share < _LEAST_ENTROPY or self.top_share > _LARGEST_TOP

    @property
    def flat(self) -> bool:
        """Whether all items of a list are alike: scores that are all the same, or next to it."""
        return self.entropy_share > _FLAT


def targets_of_training(settings: DistillSettings, meetings: Meetings, listing: Listing) -> TeacherTargets | None:
    """The targets of the first batches, as the loss will see them but for what the bank adds.

    Returns:
        None where the objective has no softmax of the teacher, or no list of these batches has two items.
    """
    temperature = _teacher_temperature(settings)
    if temperature is None:
        return None
    found = (listing.of(meetings.at(step), step) for step in range(min(_BATCHES, settings.steps)))
    lists = (one for both in found for one in (both.i2t, both.t2i) if one is not None)
    if settings.objective == "kl" and settings.kl.standardise:
        lists = (standardise_both(torch.zeros_like(one.teacher_QN), one)[1] for one in lists)
    return measure_targets(lists, temperature)


def measure_targets(lists: Iterable[TeacherLists], temperature: float) -> TeacherTargets | None:
    """Mean over all lists of two items and more; None where there is none.

    Args:
        lists: Of one batch and direction each.
        temperature: Divides the teacher's scores.
    """
    found = [_shares(one.teacher_QN, one.listed_QN, temperature) for one in lists]
    shares_L2 = torch.cat(found) if found else torch.empty(0, 2)
    return TeacherTargets(*shares_L2.mean(dim=0).tolist()) if len(shares_L2) else None


def _shares(scores_QN: Float[Tensor, "Q N"], listed_QN: Tensor, temperature: float) -> Float[Tensor, "L 2"]:
    """Entropy share and top share of each list of two items and more."""
    lengths_Q = listed_QN.sum(dim=1)
    target_QN = masked_softmax(scores_QN.double(), listed_QN, temperature)
    entropy_Q = torch.special.entr(target_QN).sum(dim=1) / lengths_Q.clamp(min=2).log()
    return torch.stack([entropy_Q, target_QN.amax(dim=1)], dim=1)[lengths_Q >= 2]


def _teacher_temperature(settings: DistillSettings) -> float | None:
    """Temperature of the teacher's softmax; None for objectives that have none."""
    if settings.objective == "cprd":
        return settings.cprd.teacher_temperature if settings.cprd.weights == "soft" else None
    if settings.objective == "kl":
        return settings.kl.teacher_temperature
    return settings.listnet.teacher_temperature if settings.objective == "listnet" else None
