"""The outcome: tables of all models with their intervals."""

from dataclasses import dataclass

from cprd_pipeline.reporting.bars import Bar, bars
from cprd_pipeline.reporting.directions import TITLES
from cprd_pipeline.reporting.inputs import TEACHER, Inputs
from cprd_pipeline.reporting.markup import Html, Section, element
from cprd_pipeline.reporting.tables import framed, row


@dataclass(frozen=True)
class _Group:
    """Columns under one title: name of each figure in the metrics, and what it is called here."""

    title: str
    columns: tuple[tuple[str, str], ...]


_RECALLS = [
    _Group("", (("rsum", "RSUM"),)),
    *(_Group(f"{title}, %", tuple((f"{side}_r{k}", f"R@{k}") for k in (1, 5, 10))) for side, title in TITLES.items()),
]
_GRADED = _Group("graded nDCG@10, %", (("i2t_ndcg10", "i→t"), ("t2i_ndcg10", "t→i")))
_FURTHER = (("map_r", "MAP@R"), ("r_precision", "R-prec."), ("binary_ndcg10", "nDCG@10"), ("mrr", "MRR"), ("median_rank", "median"))
_MORE = [_Group(title, tuple((f"{side}_{key}", name) for key, name in _FURTHER)) for side, title in TITLES.items()]


def results(inputs: Inputs) -> Section:
    """One row a model: recalls, their sum, nDCG where the true relevance is known; then the figures over all positives."""
    order = sorted(inputs.metrics, key=lambda name: inputs.metrics[name]["rsum"])
    graded = all(key in figures for figures in inputs.metrics.values() for key, _ in _GRADED.columns)
    further = element(
        "p",
        "Over all right answers: MAP@R and R-precision, R being their number; nDCG@10 with each worth the same; MRR and median "
        "rank of the first.",
        class_="muted",
    )
    return Section(
        "Results",
        f"Split {inputs.split}. R@K: share of queries with a right answer among the first K of all items; RSUM: their sum, at "
        f"most 600. Teacher: the cross-encoder reordering the first {inputs.rerank_depth} of {inputs.miner}, to which "
        f"it can add nothing: a student that finds more may pass it at larger K.{_uncertainty(inputs)}",
        (
            bars("RSUM", [_bar(inputs, name) for name in order], 600.0),
            _table(inputs, order, [*_RECALLS, *([_GRADED] if graded else [])]),
            element("h3", "Further figures"),
            further,
            _table(inputs, order, _MORE),
        ),
    )


def _uncertainty(inputs: Inputs) -> str:
    if not inputs.background.intervals:
        return ""
    return (
        " Below a figure: its 95 % interval, images resampled with their captions. Star: better than every other student beyond "
        "chance (paired randomisation tests, Holm's correction)."
    )


def _label(inputs: Inputs, name: str) -> str:
    return f"teacher, top {inputs.rerank_depth} of {inputs.miner}" if name == TEACHER else name


def _bar(inputs: Inputs, name: str) -> Bar:
    colour = "student" if name == inputs.student else "positive" if name == TEACHER else "plain"
    return Bar(_label(inputs, name), colour, inputs.metrics[name]["rsum"], inputs.background.interval(name, "rsum"))


def _table(inputs: Inputs, order: list[str], groups: list[_Group]) -> Html:
    over = [element("th", group.title, colspan=str(len(group.columns)), scope="colgroup") for group in groups]
    columns = [column for group in groups for column in group.columns]
    titles = [element("th", title, scope="col") for _, title in columns]
    head = [element("tr", element("td"), *over), element("tr", element("th", "model", scope="col"), *titles)]
    rows = [
        row(_label(inputs, name), "", [_cell(inputs, name, key) for key, _ in columns], "chosen" if name == inputs.student else "")
        for name in order
    ]
    return framed(head, rows, "results")


def _cell(inputs: Inputs, name: str, key: str) -> Html:
    digits = 3 if key.endswith("_mrr") else 1
    star = [element("b", "★", title="better than every other student beyond chance")]
    interval = inputs.background.interval(name, key)
    below = [element("small", f"{interval[0]:.{digits}f}\N{EN DASH}{interval[1]:.{digits}f}")] if interval else []
    best = star if inputs.background.clearly_best.get(key) == name else []
    return element("td", *best, f"{inputs.metrics[name][key]:.{digits}f}", *below, class_="total" if key == "rsum" else "")
