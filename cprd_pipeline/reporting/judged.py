"""Sets that people judged beyond the annotated positives, and folds of the split: a row a figure, a column a model."""

from cprd_pipeline.reporting.background import Background, Bounds
from cprd_pipeline.reporting.directions import TITLES
from cprd_pipeline.reporting.markup import Html, Section
from cprd_pipeline.reporting.tables import MISSING, row, table, with_interval

_SETS = {
    "folds": "mean over folds",
    "eccv": "ECCV Caption",
    "cxc": "Crisscrossed Captions",
    "flickr8k": "Flickr8k experts",
    "sugarcrepe": "SugarCrepe",
    "valse": "VALSE",
    "negclip": "NegCLIP",
}
_FIGURES = {
    "rsum": "RSUM",
    "r1": "R@1",
    "r5": "R@5",
    "r10": "R@10",
    "map_r": "MAP@R",
    "r_precision": "R-precision",
    "binary_ndcg10": "nDCG@10",
    "mrr": "MRR",
    "tau_c": "Kendall's tau-c",
    "tau_b": "Kendall's tau-b",
    "sits_spearman": "Spearman's correlation",
    "sits_spearman_deviation": "its deviation over samples",
    "mean": "mean over the kinds",
}
# Of the folds' figures those that measure nothing.
_COUNTS = ("folds_count", "folds_images_left_out", "folds_captions_left_out")


def judged(metrics: dict[str, dict[str, float]], background: Background) -> list[Section]:
    """A table of the sets that were evaluated; nothing when there is none.

    Args:
        metrics: Figures of each model.
        background: With the figures' intervals.
    """
    models = [name for name, figures in metrics.items() if any(_set_of(key) for key in figures)]
    names = list(dict.fromkeys(key for model in models for key in metrics[model] if _set_of(key)))
    if not names:
        return []
    lines = []
    for key in names:
        prefix = _set_of(key)
        figure = key.removeprefix(f"{prefix}_")
        intervals = background.judged[prefix].intervals if prefix in background.judged else {}
        cells = [_cell(metrics[model].get(key), intervals.get(model, {}).get(figure)) for model in models]
        lines.append(row(_name(figure), _SETS[prefix], cells, ""))
    explanation = (
        "Shares in percent, correlations from -1 to 1; higher is better, of ranks lower. Hard negatives: guessing gives 50."
        f"{_folds(metrics)}"
    )
    return [Section("Judged sets and folds", explanation, (table(["figure", *models], lines, "counters"),))]


def _cell(value: float | None, bounds: Bounds | None) -> Html:
    return with_interval(MISSING if value is None else f"{value:z.2f}".replace("-", "\N{MINUS SIGN}"), bounds, 2)


def _name(figure: str) -> str:
    """A figure as people call it; kinds of hard negatives are called by the sets' own words."""
    direction, _, measured = figure.partition("_")
    if direction in TITLES:
        return f"{_name(measured)}, {TITLES[direction]}"
    return _FIGURES.get(figure, figure.replace("_", " "))


def _folds(metrics: dict[str, dict[str, float]]) -> str:
    """How many folds there are, and what fills none: the same of every model."""
    count, images, captions = (next((int(one[key]) for one in metrics.values() if key in one), 0) for key in _COUNTS)
    left_out = f", which leaves {images:,} images and {captions:,} captions out" if images or captions else ""
    return f" Folds: {count:,}{left_out}." if count else ""


def _set_of(key: str) -> str:
    """The set that a figure belongs to; empty for the split's own figures, and for counts."""
    prefix = key.partition("_")[0]
    return prefix if prefix in _SETS and key not in _COUNTS else ""
