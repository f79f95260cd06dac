"""Which loss an objective's name stands for, which lists it is given, and at which temperatures.

Shape suffixes: Q queries, N items encoded with the batch.
"""

from typing import Literal, NamedTuple, assert_never

from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.distillation.losses.cprd import cprd_loss
from cprd_pipeline.distillation.losses.kl import kl_loss
from cprd_pipeline.distillation.losses.listmle import listmle_loss
from cprd_pipeline.distillation.losses.listnet import listnet_loss
from cprd_pipeline.distillation.losses.lists import TeacherLists
from cprd_pipeline.distillation.losses.margin_mse import margin_mse_loss
from cprd_pipeline.distillation.losses.ranknet import ranknet_loss
from cprd_pipeline.distillation.losses.standardise import standardise_both
from cprd_pipeline.distillation.objective_settings import KlSettings, MarginMseSettings, SoftmaxSettings
from cprd_pipeline.distillation.settings import DistillSettings


class ListRules(NamedTuple):
    """Which pairs enter the list of a query, and how; see `CprdSettings`."""

    valid: Literal["listed", "rankings"]
    positive_in_list: bool
    easy_negatives: Literal["in_batch", "bank", "none"]


def list_rules(settings: DistillSettings) -> ListRules:
    """What enters the lists of the chosen objective; the contrastive loss alone has none."""
    match settings.objective:
        case "cprd":
            return _soft_rules(settings.cprd.valid, settings.cprd)
        case "kl":
            return _soft_rules("listed", settings.kl)
        case "margin_mse":
            return ListRules("listed", True, "none")
        case "listnet":
            return ListRules("listed", settings.listnet.positive_in_list, "none")
        case "listmle":
            return ListRules("listed", settings.listmle.positive_in_list, "none")
        case "ranknet":
            return ListRules("listed", settings.ranknet.positive_in_list, "none")
        case "itc":
            raise AssertionError("itc has no lists")
    assert_never(settings.objective)


def _soft_rules(valid: Literal["listed", "rankings"], chosen: SoftmaxSettings) -> ListRules:
    return ListRules(valid, chosen.positive_in_list, chosen.easy_negatives)


def teacher_loss(
    settings: DistillSettings, similarities_QN: Float[Tensor, "Q N"], scale: Float[Tensor, ""], lists: TeacherLists
) -> Float[Tensor, ""]:
    """The chosen distillation loss of one direction: the mean over all queries, of which those without a list add 0.

    Args:
        settings: Which objective, and its knobs.
        similarities_QN: Cosines, float32 or float64.
        scale: The contrastive loss's inverse temperature, for objectives that share it.
        lists: The teacher's knowledge of the same pairs.
    """
    match settings.objective:
        case "cprd":
            cprd = settings.cprd
            logits_QN = similarities_QN * _own_scale(cprd.student_temperature, scale)
            return cprd_loss(logits_QN, lists, cprd.weights, cprd.teacher_temperature)
        case "kl":
            logits_QN, lists = _both_sides(settings.kl, similarities_QN, scale, lists)
            return kl_loss(logits_QN, lists, settings.kl.teacher_temperature)
        case "margin_mse":
            logits_QN, lists = _both_sides(settings.margin_mse, similarities_QN, scale, lists)
            return margin_mse_loss(logits_QN, lists, settings.margin_mse.teacher_temperature)
        case "listnet":
            logits_QN = similarities_QN * _own_scale(settings.listnet.student_temperature, scale)
            return listnet_loss(logits_QN, lists, settings.listnet.teacher_temperature)
        case "listmle":
            return listmle_loss(similarities_QN * _own_scale(settings.listmle.student_temperature, scale), lists)
        case "ranknet":
            logits_QN = similarities_QN * _own_scale(settings.ranknet.student_temperature, scale)
            return ranknet_loss(logits_QN, lists, settings.ranknet.weights)
        case "itc":
            raise AssertionError("itc has no lists")
    assert_never(settings.objective)


def _own_scale(temperature: float | None, scale: Tensor) -> Tensor | float:
    return scale if temperature is None else 1 / temperature


def _both_sides(
    chosen: KlSettings | MarginMseSettings, similarities_QN: Tensor, scale: Tensor, lists: TeacherLists
) -> tuple[Tensor, TeacherLists]:
    """Student logits, and lists of which the teacher's temperature has yet to divide the scores."""
    if not chosen.standardise:
        return similarities_QN * _own_scale(chosen.student_temperature, scale), lists
    # The shared scale decides how wide a list must be to count as more than flat; it leaves no other trace.
    logits_QN, lists = standardise_both(similarities_QN * scale, lists)
    return logits_QN / (chosen.student_temperature or chosen.teacher_temperature), lists
