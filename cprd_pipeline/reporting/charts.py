"""The sections that are plots: distributions of scores, and learning curves."""

import itertools

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from cprd_pipeline.reporting.inputs import Inputs
from cprd_pipeline.reporting.logs import TrainingLog
from cprd_pipeline.reporting.markup import Html, Section, element
from cprd_pipeline.reporting.plots import histogram, learning_curves

_GROUP_COLOURS = {"positives": "positive", "candidates": "candidate"}
_TERM_COLOURS = ("student", "candidate", "positive", "fourth", "fifth")


def distributions(inputs: Inputs) -> Section:
    """How teacher scores and similarities spread, for positives and for mined candidates."""
    rankings, lists = inputs.rankings, inputs.student_lists
    positives = "positive_similarities"
    plots = [
        _distribution("Teacher", "score (logit)", rankings, "positive_scores", "teacher_scores"),
        _distribution(inputs.miner, "cosine similarity", rankings, positives, "similarities"),
    ]
    if inputs.student != inputs.miner:
        plots.append(_distribution(inputs.student, "cosine similarity", lists, positives, "candidate_similarities"))
    return Section(
        "Distributions",
        f"What each of them gives to the annotated positives and to the mined candidates of the split {inputs.split}. Candidates "
        "far to the right are likely false negatives.",
        (element("div", *plots, class_="plots"),),
    )


def _distribution(title: str, x_label: str, table: pa.Table, positives: str, candidates: str) -> Html:
    groups = {"positives": _values(table, positives), "candidates": _values(table, candidates)}
    return histogram(title, x_label, groups, _GROUP_COLOURS)


def _values(table: pa.Table, column: str) -> Float32[np.ndarray, " N"]:
    return np.asarray(table[column].combine_chunks().flatten().to_numpy())


def curves(logs: list[TrainingLog]) -> list[Section]:
    """One chart a training; nothing of those that logged a single step, which makes no line."""
    plots = [_learning_curves(log) for log in logs if len(log.steps) > 1]
    if not plots:
        return []
    explanation = "Training loss and its terms over steps. The whole weighs its terms, so it is not their plain sum."
    return [Section("Learning curves", explanation, (element("div", *plots, class_="plots"),))]


def _learning_curves(log: TrainingLog) -> Html:
    # The whole before its parts: it is the log's first loss when sorted so.
    names = sorted(log.terms, key=lambda name: (name not in ("loss", "total"), name))
    colours = dict(zip(names, itertools.cycle(_TERM_COLOURS), strict=False))
    return learning_curves(log.name, log.steps, {name: log.terms[name] for name in names}, colours)
