"""From candidates and teacher scores to rankings: sorted, with the valid prefix and the false negatives."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.errors import StoreError
from cprd_pipeline.scoring.candidates import CandidatesPart, Floats
from cprd_pipeline.scoring.pairs import Codes, PairSpace
from cprd_pipeline.scoring.plan import is_among
from cprd_pipeline.scoring.settings import ScoreSettings, ValidRule
from cprd_pipeline.store.schemas import RANKINGS
from cprd_pipeline.store.scores import KnownScores

_NAMED_PAIRS = 3

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Extremes:
    """Teacher scores of a query's positives, one entry a query, float32 [R].

    Args:
        lowest: Infinite without positives, so that nothing is near it.
        highest: Infinite without positives, so that nothing is above it.
    """

    lowest: Floats
    highest: Floats


class Ranker:
    """Makes the rankings of one run.

    Args:
        space: The corpus's pairs.
        known: Their teacher scores.
        settings: Rules.
    """

    def __init__(self, space: PairSpace, known: KnownScores, settings: ScoreSettings) -> None:
        self._space = space
        self._known = known
        self._settings = settings

    def table(self, part: CandidatesPart) -> pa.Table:
        """Rankings of one part of the candidates, the queries in its order.

        A flagged candidate matches in truth, so with `mark` it is always valid: the rule looks at the whole list,
        flagged ones included, and n_valid is at least their number. They are the best of the list, so the valid ones
        stay a prefix. With `drop` they are taken out before the rule looks.

        Raises:
            StoreError: The store lacks a pair.
        """
        positive_scores = self._scores(part, part.positives.codes)
        scores = self._scores(part, part.candidates.codes)
        query = part.candidates.query
        extremes = extremes_of(positive_scores, part.positives.lengths)
        above = is_false_negative(scores, query, extremes, self._settings.false_negative_margin)
        kept = ~above if self._settings.false_negatives == "drop" else np.ones(len(scores), dtype=np.bool_)
        flagged = above if self._settings.false_negatives == "mark" else np.zeros(len(scores), dtype=np.bool_)
        _, items = self._space.sides(part.direction)
        # Positions of the kept candidates, by query, best first, ties by id.
        order = np.flatnonzero(kept)
        order = order[np.lexsort((items.id_rank[part.candidates.rows[order]], -scores[order], query[order]))]
        lengths = np.bincount(query[order], minlength=len(part.query_ids)).astype(np.int64)
        n_valid, cutoff = valid_prefix(scores[order], flagged[order], lengths, extremes, self._settings.valid)
        return pa.table(
            [
                part.query_ids,
                pa.array([part.direction] * len(part.query_ids), pa.string()),
                _lists(lengths, items.ids.take(pa.array(part.candidates.rows[order]))),
                _lists(lengths, pa.array(scores[order])),
                _lists(lengths, pa.array(part.candidates.similarities[order])),
                _lists(lengths, pa.array(flagged[order])),
                pa.array(n_valid, pa.int32()),
                cutoff,
                _lists(part.positives.lengths, items.ids.take(pa.array(part.positives.rows))),
                _lists(part.positives.lengths, pa.array(positive_scores)),
                _lists(part.positives.lengths, pa.array(part.positives.similarities)),
            ],
            schema=RANKINGS,
        )

    def _scores(self, part: CandidatesPart, codes: Codes) -> Floats:
        known = self._known
        found = is_among(codes, known.codes)
        if not found.all():
            missing = np.unique(codes[~found])
            named = [self._space.name(int(code)) for code in missing[:_NAMED_PAIRS]]
            raise StoreError(
                f"the score store lacks {len(missing)} pairs of {part.name}, first {', '.join(named)}",
                expected="a score of every candidate and positive",
                do="run `cprd-pipeline score-teacher` again",
            )
        scores: Floats = known.scores[np.searchsorted(known.codes, codes)]
        return scores


def extremes_of(positive_scores: Floats, lengths: Rows) -> Extremes:
    """Lowest and highest score of each query's positives.

    Args:
        positive_scores: Query by query, float32 [P].
        lengths: Positives of each query, int64 [R].
    """
    lowest, highest = (np.full(len(lengths), np.inf, dtype=np.float32) for _ in range(2))
    some = lengths > 0
    if some.any():
        starts = (np.cumsum(lengths) - lengths)[some]
        lowest[some] = np.minimum.reduceat(positive_scores, starts)
        highest[some] = np.maximum.reduceat(positive_scores, starts)
    return Extremes(lowest, highest)


def is_false_negative(scores: Floats, query: Rows, extremes: Extremes, margin: float) -> Bools:
    """Whether each candidate stands above its query's best positive by more than the margin; bool [T].

    Args:
        scores: Of the candidates, float32 [T].
        query: Which query each belongs to, int64 [T].
        extremes: Of the positives.
        margin: Difference of logits.
    """
    return scores > (extremes.highest[query] + np.float32(margin))


def valid_prefix(scores: Floats, flagged: Bools, lengths: Rows, extremes: Extremes, rule: ValidRule) -> tuple[Rows, pa.Array]:
    """Number of valid candidates of each query, int64 [R], and the lowest valid score, null where none is.

    Args:
        scores: Query by query, descending within one; float32 [T].
        flagged: Candidates that are valid whatever the rule says: the best of their list; bool [T].
        lengths: Candidates of each query, int64 [R].
        extremes: Of the positives.
        rule: Which candidates are valid.
    """
    query = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    if rule.rule == "top_m":
        valid = np.arange(len(scores)) - starts[query] < rule.top_m
    elif rule.rule == "threshold":
        valid = scores > np.float32(rule.threshold)
    else:
        valid = scores >= (extremes.lowest - np.float32(rule.margin))[query]
    n_valid = np.bincount(query[valid | flagged], minlength=len(lengths)).astype(np.int64)
    last = np.where(n_valid > 0, starts + n_valid - 1, 0)
    cutoff = scores[last] if len(scores) else np.zeros(len(lengths), dtype=np.float32)
    return n_valid, pa.array(cutoff, pa.float32(), mask=n_valid == 0)


def rules_of(settings: ScoreSettings, roles: Literal["both", "each"]) -> dict[str, Any]:
    """The settings that shape rankings: those in force, since an unused value changes no byte.

    Args:
        settings: Of the stage.
        roles: Of the teacher; said where scores depend on who asks, so that readers do not mix the directions.
    """
    rules: dict[str, Any] = {"valid": settings.valid.in_force(), "false_negatives": settings.false_negatives}
    if roles == "each":
        rules["roles"] = roles
    if settings.false_negatives != "keep":
        rules["false_negative_margin"] = settings.false_negative_margin
    return rules


def _lists(lengths: Rows, values: pa.Array) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
