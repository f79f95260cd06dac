"""The outcome in a few figures, and in words where a figure would say too much."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64

from cprd_pipeline.metrics.retrieval import RECALL_AT
from cprd_pipeline.metrics.significance import GroupedQueries, Interval, bootstrap_means, percentile_interval
from cprd_pipeline.reporting.directions import DIRECTIONS
from cprd_pipeline.reporting.inputs import TEACHER, Inputs
from cprd_pipeline.reporting.markup import Html, element, join

_REPLICATES = 1000


def headline(inputs: Inputs) -> Html:
    """The student's RSUM, its gain, and how far that is on the way to the teacher, where there is such a way."""
    base, student, teacher = (inputs.metrics[name]["rsum"] for name in (inputs.miner, inputs.student, TEACHER))
    tiles = [
        (f"{student:.1f}", f"RSUM of {inputs.student}"),
        (_signed(f"{student - base:+z.1f}"), f"against {inputs.miner} ({base:.1f})"),
    ]
    without = _why_no_share(inputs)
    if not without:
        tiles.append((_signed(f"{(student - base) / (teacher - base):z.0%}"), f"of the way to the teacher ({teacher:.1f})"))
    shown = element(
        "div", *(element("p", element("strong", figure), element("span", text)) for figure, text in tiles), class_="tiles"
    )
    return join(shown, element("p", without, class_="muted")) if without else shown


def _why_no_share(inputs: Inputs) -> str:
    """Why no share of the way to the teacher is told; empty where one is.

    A gap of some tenths, which another test set would turn round, makes any share of it a large and empty number.
    """
    student, teacher = (inputs.metrics[name]["rsum"] for name in (inputs.student, TEACHER))
    reranked = f"the teacher's reranking of the lists of {inputs.miner} ({teacher:.1f})"
    gap = rsum_gap(inputs.queries[inputs.miner], inputs.queries[TEACHER])
    if gap.high < 0:
        return f"Here {reranked} is worse than {inputs.miner} itself: there is no way to go."
    if gap.low <= 0:
        return f"Here {reranked} differs from {inputs.miner} by no more than chance does: no share of the way to it is told."
    if student > teacher:
        return f"Here {inputs.student} stands above {reranked}, which adds nothing to those lists."
    return ""


def rsum_gap(left: pa.Table, right: pa.Table) -> Interval:
    """By how much RSUM rises from one model to another, with its 95 % interval over test images, paired.

    Args:
        left: Results of each query, as `store.schemas.EVALUATED_QUERIES`.
        right: Of another model, the same queries in the same order.
    """
    groups = 1 + max(pc.max(left["group"]).as_py(), pc.max(right["group"]).as_py())
    directions = []
    for direction in DIRECTIONS:
        ours, theirs = (table.filter(pc.equal(table["direction"], direction)) for table in (left, right))
        gains = _recalls(theirs) - _recalls(ours)
        directions.append(GroupedQueries.of(gains, ours["group"].to_numpy().astype(np.int64), groups))
    drawn = bootstrap_means(directions, _REPLICATES, np.random.default_rng(0)).sum(axis=1)
    return percentile_interval(float(sum(one.contributions.sum() for one in directions)), drawn)


def _recalls(results: pa.Table) -> Float64[np.ndarray, "Q 1"]:
    """What each query adds to the sum of the recalls, in percent."""
    found = results["rank"].to_numpy()[:, None] <= np.array(RECALL_AT)
    return np.asarray(100.0 * found.sum(axis=1, keepdims=True, dtype=np.float64))


def _signed(number: str) -> str:
    return number.replace("-", "\N{MINUS SIGN}")
