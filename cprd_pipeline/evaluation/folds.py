"""Figures of a split cut into folds, as COCO's 1K protocol has them: the mean over the folds."""

from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.questions import DIRECTIONS
from cprd_pipeline.evaluation.students import EmbeddedStudent
from cprd_pipeline.metrics.averages import mean_figures
from cprd_pipeline.metrics.folds import Fold, folds_of
from cprd_pipeline.metrics.positives import Positives
from cprd_pipeline.metrics.ranking import rank_both_directions
from cprd_pipeline.metrics.retrieval import measure_queries, rsum, summarise_queries


def figures_of_folds(student: EmbeddedStudent, positives: Positives, size: int) -> dict[str, float]:
    """Mean of each figure over the folds; images that fill no fold are left out and counted.

    Args:
        student: The student.
        positives: Captions of each image of the split.
        size: Images of a fold.

    Returns:
        As `summarise` names them, with `rsum`, and `count`, `images_left_out`, `captions_left_out`.

    Raises:
        CorpusError: The split has fewer images than a fold.
    """
    if len(positives) < size:
        raise CorpusError(
            f"the split has {len(positives):,} images",
            expected=f"at least one fold of {size:,}",
            do="lower folds, or set it to null",
        )
    cut = folds_of(positives, size)
    means = mean_figures([_figures(student, fold) for fold in cut.folds])
    counts = {"count": len(cut.folds), "images_left_out": cut.images_left_out, "captions_left_out": cut.captions_left_out}
    return {name: round(value, 4) for name, value in means.items()} | {name: float(value) for name, value in counts.items()}


def _figures(student: EmbeddedStudent, fold: Fold) -> dict[str, float]:
    ranked = rank_both_directions(student.images[fold.images], student.captions[fold.captions], fold.positives)
    summaries = [summarise_queries(measure_queries(one)) for one in ranked]
    figures = {"rsum": rsum(*summaries)}
    for direction, summary in zip(DIRECTIONS, summaries, strict=True):
        figures |= {f"{direction}_{name}": value for name, value in summary.items()}
    return figures
