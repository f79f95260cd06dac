"""From per-query results to the figures that are reported."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.evaluation.questions import DIRECTIONS
from cprd_pipeline.metrics.retrieval import RECALL_AT, rsum, summarise_ranks

_DECIMALS = 4


def summarise(results: pa.Table) -> dict[str, float]:
    """All figures of one model.

    Args:
        results: Its per-query results in both directions.

    Returns:
        For i2t and t2i: `i2t_r1`, `i2t_r5`, `i2t_r10` in percent, `i2t_median_rank`, `i2t_mean_rank`, `i2t_mrr`, and
        `i2t_ndcg10` in percent where the true relevance is known; `rsum`, at most 600. Rounded to 4 decimals.
    """
    figures: dict[str, float] = {}
    recalls = []
    for direction in DIRECTIONS:
        rows = results.filter(pc.equal(results["direction"], direction))
        summary = summarise_ranks(rows["rank"].to_numpy())
        recalls.append(summary)
        if rows["ndcg"].null_count == 0:
            summary = summary | {"ndcg10": 100.0 * float(np.mean(rows["ndcg"].to_numpy()))}
        figures |= {f"{direction}_{name}": round(value, _DECIMALS) for name, value in summary.items()}
    return {"rsum": round(rsum(*recalls), _DECIMALS)} | figures


def results_rows(metrics: dict[str, dict[str, float]], labels: dict[str, str]) -> list[tuple[str, str]]:
    """The terminal's table: a heading, then one line a model; fits 80 columns.

    Args:
        metrics: Figures of each model, in the order shown.
        labels: What to call a model where its name says too little.
    """
    graded = all("i2t_ndcg10" in figures for figures in metrics.values())
    heading = "".join(f"{title:>6}" for title in ("i2t@1", "@5", "@10", "t2i@1", "@5", "@10", "RSUM"))
    rows = [("recall in %", heading + ("  nDCG@10 i2t/t2i" if graded else ""))]
    return rows + [(labels.get(name, name), _line(figures)) for name, figures in metrics.items()]


def _line(figures: dict[str, Any]) -> str:
    recalls = "".join(f"{figures[f'{direction}_r{k}']:6.1f}" for direction in DIRECTIONS for k in RECALL_AT)
    graded = f"      {figures['i2t_ndcg10']:5.1f}/{figures['t2i_ndcg10']:.1f}" if "i2t_ndcg10" in figures else ""
    return f"{recalls}{figures['rsum']:6.1f}{graded}"
