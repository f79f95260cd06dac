"""Finding 2: whose order agrees among which ranks of the teacher's lists."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Int64

from cprd_pipeline.corpus.reader import Corpus, Rows
from cprd_pipeline.corpus.relevance import read_relevance
from cprd_pipeline.evaluation.agreement import BANDS
from cprd_pipeline.evaluation.questions import DIRECTIONS, Direction
from cprd_pipeline.evaluation.rankings import Rankings
from cprd_pipeline.evaluation.study.evaluation import Evaluated
from cprd_pipeline.evaluation.study.order import PairCounts, count_pairs
from cprd_pipeline.evaluation.study.settings import StudySettings, student_name
from cprd_pipeline.metrics.graded import positions_in_lists
from cprd_pipeline.metrics.significance import bootstrap_means, percentile_interval
from cprd_pipeline.store.folder import InputFolder

VALID, REST = "valid", "rest"


@dataclass(frozen=True)
class TeacherLists:
    """The candidates of both directions, list after list, each in the teacher's order.

    Args:
        lengths: Of the lists.
        scores: Of the teacher.
        truth: True relevance; None where it is not known.
        bands: Which candidates each band holds, by its name.
    """

    lengths: Int64[np.ndarray, " R"]
    scores: Float32[np.ndarray, " T"]
    truth: Float32[np.ndarray, " T"] | None
    bands: dict[str, Bool[np.ndarray, " T"]]

    def agreement(self, other: Float32[np.ndarray, " T"]) -> dict[str, PairCounts]:
        """Of another order of the same candidates with the teacher's, band by band."""
        return {name: count_pairs(self.lengths, inside, self.scores, other) for name, inside in self.bands.items()}


def read_lists(evaluated: Evaluated) -> TeacherLists:
    """The rankings that an evaluation read."""
    settings = evaluated.settings
    assert settings.rankings is not None
    corpus = Corpus(settings.corpus)
    split = corpus.split(settings.split)
    relevance = read_relevance(corpus, split)
    rankings = Rankings(settings.rankings, corpus, split)
    said = {direction: rankings.direction(direction).candidates for direction in DIRECTIONS}
    truths = []
    for direction, one in said.items():
        if relevance is not None:
            images, captions = (one.queries, one.items) if direction == "i2t" else (one.items, one.queries)
            truths.append(relevance[np.searchsorted(split.images, images), np.searchsorted(split.captions, captions)])
    lengths = np.concatenate([one.lengths for one in said.values()])
    n_valid = np.concatenate(list(_valid_counts(InputFolder(settings.rankings, "rankings")).values()))
    scores = np.concatenate([one.teacher_scores for one in said.values()])
    return TeacherLists(lengths, scores, np.concatenate(truths) if truths else None, bands_of(lengths, n_valid))


def _valid_counts(folder: InputFolder) -> Mapping[Direction, Rows]:
    table = folder.tables("")
    return {
        direction: table.filter(pc.equal(table["direction"], direction))["n_valid"].to_numpy().astype(np.int64)
        for direction in DIRECTIONS
    }


def bands_of(lengths: Int64[np.ndarray, " R"], n_valid: Int64[np.ndarray, " R"]) -> dict[str, Bool[np.ndarray, " T"]]:
    """Valid hard negatives and the rest, then ranks 1 to 5, 6 to 10 and so on as far as the lists go.

    Args:
        lengths: Items of each list.
        n_valid: How many of them, from the first on, are valid.
    """
    ranks = positions_in_lists(np.repeat(np.arange(len(lengths)), lengths)) + 1
    valid = ranks <= np.repeat(n_valid, lengths)
    longest = int(lengths.max(initial=0))
    bands = {VALID: valid, REST: ~valid}
    for before, edge in zip((0, *BANDS), BANDS, strict=False):
        if before + 1 < longest:
            bands[f"{before + 1}-{min(edge, longest)}"] = (ranks > before) & (ranks <= edge)
    return bands


def student_similarities(evaluated: Evaluated, arm: str, seed: int) -> Float32[np.ndarray, " T"]:
    """One student's similarities of the candidates, in the order of `TeacherLists`."""
    table = evaluated.folder.table(f"lists-{student_name(arm, seed)}.parquet")
    parts = [table.filter(pc.equal(table["direction"], direction))["candidate_similarities"] for direction in DIRECTIONS]
    return np.concatenate([part.combine_chunks().flatten().to_numpy() for part in parts])


def band_results(settings: StudySettings, evaluated: Evaluated) -> dict[str, Any]:
    """Agreement by band, for the report.

    Args:
        settings: Arms and seeds.
        evaluated: All students, with the lists of the rankings.

    Returns:
        `bands`: their names. `arms`: for each, its agreement with the teacher, seed by seed, by band; None without pairs.
        `truth`: None when it is not known; otherwise `bands` with the teacher's agreement with it, and `valid_from_rest` with
        the difference between these two and its 95 % interval over lists, None where one of them has no pairs.
    """
    lists = read_lists(evaluated)
    by_arm: dict[str, dict[str, list[float | None]]] = {}
    for arm in settings.arms:
        found = [lists.agreement(student_similarities(evaluated, arm, seed)) for seed in settings.seeds]
        by_arm[arm] = {band: [_rounded(one[band].gamma) for one in found] for band in lists.bands}
    truth = None
    if lists.truth is not None:
        counts = lists.agreement(lists.truth)
        difference = valid_from_rest(counts[VALID], counts[REST], settings.replicates)
        truth = {"bands": {band: _rounded(one.gamma) for band, one in counts.items()}, "valid_from_rest": difference}
    return {"bands": list(lists.bands), "arms": by_arm, "truth": truth}


def valid_from_rest(valid: PairCounts, rest: PairCounts, replicates: int) -> list[float] | None:
    """How much better orders agree among valid items than among the rest: the difference and its 95 % interval over lists."""
    if valid.gamma is None or rest.gamma is None:
        return None
    drawn = bootstrap_means([valid.grouped(), rest.grouped()], replicates, np.random.default_rng(0))
    found = percentile_interval(valid.gamma - rest.gamma, drawn[:, 0] - drawn[:, 1])
    return [round(value, 6) for value in (found.estimate, found.low, found.high)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
