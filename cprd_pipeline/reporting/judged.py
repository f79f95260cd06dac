"""Sets that people judged beyond the annotated positives, and folds of the split: a row a figure, a column a model."""

from cprd_pipeline.reporting.background import Background, Bounds
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
        lines.append(row(figure, _SETS[prefix], cells, ""))
    explanation = "Shares in percent, correlations from -1 to 1; higher is better. Hard negatives: guessing gives 50."
    return [Section("Judged sets and folds", explanation, (table(["figure", *models], lines, "counters"),))]


def _cell(value: float | None, bounds: Bounds | None) -> Html:
    return with_interval(MISSING if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}"), bounds, 2)


def _set_of(key: str) -> str:
    """The set that a figure belongs to; empty for the split's own figures."""
    prefix = key.partition("_")[0]
    return prefix if prefix in _SETS else ""
