"""How near each student came to the teacher's order: what distillation is about, apart from the annotations."""

from cprd_pipeline.reporting.background import Band
from cprd_pipeline.reporting.directions import TITLES
from cprd_pipeline.reporting.inputs import Inputs
from cprd_pipeline.reporting.markup import Section
from cprd_pipeline.reporting.tables import MISSING, row, table, with_interval


def agreement(inputs: Inputs) -> list[Section]:
    """One row a student and direction; nothing when the evaluation's report is not among the stages."""
    found = inputs.background.agreement
    asked = [(model, side, found[model][side]) for side in TITLES for model in found]
    if not asked:
        return []
    bands = list(dict.fromkeys(_name(band) for _, _, said in asked for band in said.bands))
    lines = []
    for model, side, said in asked:
        taus = {_name(band): band.kendall_tau for band in said.bands}
        tau = with_interval(_number(said.kendall_tau, 2), said.kendall_tau_interval, 2)
        ndcg = with_interval(_number(said.ndcg10, 1), said.ndcg10_interval, 1)
        cells = [tau, ndcg, *(_number(taus.get(band), 2) for band in bands)]
        lines.append(row(model, TITLES[side], cells, "chosen" if model == inputs.student else ""))
    explanation = (
        "Each student's order of the mined lists against the teacher's: Kendall's tau (1: the same order, 0: unrelated), also "
        "among the candidates of some ranks by the teacher alone; nDCG@10 with the teacher's scores as gains, %."
    )
    titles = ["", "tau", "nDCG@10", *(f"tau, ranks {band}" for band in bands)]
    return [Section("Agreement with the teacher", explanation, (table(titles, lines, "counters"),))]


def _name(band: Band) -> str:
    return f"{band.first}\N{EN DASH}{band.last}"


def _number(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
