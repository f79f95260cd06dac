"""The exact head of a student's lists, and what the rankings hold of the teacher's scores for it.

Lists that a filter, a sampler or an approximate index thinned out hold a part of the head. Who only reranked what they hold would
flatter the teacher: its worst opponents are missing.
"""

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.errors import StoreError
from cprd_pipeline.evaluation.questions import DIRECTIONS, Questions
from cprd_pipeline.evaluation.rankings import DirectionRankings
from cprd_pipeline.evaluation.students import EmbeddedStudent, FloatArray
from cprd_pipeline.metrics.heads import heads
from cprd_pipeline.metrics.partial_reranking import ScoredHeads

LEAST_SCORED = 0.9
"""Share of the head that must be scored. Approximate indexes whose settings suit the data find 0.95 of it and more."""


def scored_heads(student: EmbeddedStudent, questions: Questions, rankings: DirectionRankings, depth: int) -> ScoredHeads:
    """The first `depth` items of every asked query by the student, positives and copies of a content included.

    Args:
        student: The student that mined the rankings.
        questions: The direction.
        rankings: The rankings of the direction.
        depth: Items that the teacher reorders.

    Raises:
        StoreError: The rankings lack a query or a positive, their lists are too short, or too much of the heads is not in them.
    """
    scores = _TeacherScores(questions, rankings)
    _check_positives(questions, scores)
    queries, items = student.sides(questions.direction)
    found = np.stack([head.items for head in heads(queries[questions.asked_places], items, depth, questions.positives)])
    rows, places = (axis.ravel() for axis in np.indices(found.shape))
    is_scored, values = scores.find(rows, found.ravel())
    is_positive = questions.positives.contain(rows, found.ravel())
    made = ScoredHeads(rows, found.ravel(), places + 1, is_positive, is_scored, values)
    _check_lengths(made, questions, rankings, depth)
    _check_scored(made, questions, student.name)
    return made


def head_figures(made: ScoredHeads, questions: Questions) -> dict[str, float]:
    """How much of the heads the teacher scored, in percent, to stand beside its figures."""
    return {f"{questions.direction}_head_scored": round(100.0 * made.share_scored, 4)}


def head_rows(figures: dict[str, float]) -> list[tuple[str, str]]:
    """For the terminal: a line when the teacher's figures rest on a part of the heads.

    Args:
        figures: The teacher's; none without rankings.
    """
    shares = {direction: figures.get(f"{direction}_head_scored", 100.0) for direction in DIRECTIONS}
    if min(shares.values()) == 100.0:
        return []
    told = ", ".join(f"{direction} {share:.1f} %" for direction, share in shares.items())
    return [("heads scored", f"{told}; what is not keeps its place")]


class _TeacherScores:
    """Scores by query and content: candidates are distinct by digest, yet each copy has a place of its own in a head."""

    def __init__(self, questions: Questions, rankings: DirectionRankings) -> None:
        self._questions = questions
        both = (rankings.candidates, rankings.positives)
        codes = [self._codes(lists.queries, lists.items) for lists in both]
        self._known, first = np.unique(np.concatenate(codes), return_index=True)
        self._scores = np.concatenate([lists.teacher_scores for lists in both])[first]

    def find(self, query_rows: Rows, item_rows: Rows) -> tuple[npt.NDArray[np.bool_], FloatArray]:
        """Whether each pair has a score, and the score; the pair by its places among the asked queries and the split's items."""
        asked = self._questions
        codes = self._codes(asked.asked[query_rows], asked.item_rows[item_rows])
        if not len(self._known):
            return np.zeros(len(codes), dtype=np.bool_), np.zeros(len(codes), dtype=np.float32)
        places = np.minimum(np.searchsorted(self._known, codes), len(self._known) - 1)
        return self._known[places] == codes, self._scores[places]

    def _codes(self, queries: Rows, items: Rows) -> Rows:
        """Of corpus rows."""
        return queries * len(self._questions.items) + self._questions.items.first_with_digest[items]


def _check_positives(questions: Questions, scores: _TeacherScores) -> None:
    positives = questions.positives
    lacking = np.unique(positives.queries[~scores.find(positives.queries, positives.items)[0]])
    if len(lacking):
        raise StoreError(
            f"rankings have no score for a positive of {len(lacking)} of {len(questions.asked)} {questions.direction} queries, "
            f"the first {_query(questions, lacking[0])}",
            expected="every query of the split with all its positives",
            do="run mine and score-teacher for this split again",
        )


def _check_lengths(made: ScoredHeads, questions: Questions, rankings: DirectionRankings, depth: int) -> None:
    """A short list is no fault when it holds the whole head all the same."""
    lengths = np.bincount(rankings.candidates.queries, minlength=len(questions.queries))[questions.asked]
    short = made.query_rows[~made.is_scored & (lengths[made.query_rows] < depth)]
    if len(short):
        raise StoreError(
            f"rankings list {lengths[short[0]]} candidates for {questions.direction} query {_query(questions, short[0])}",
            expected=f"at least rerank_depth = {depth}",
            do="mine this split with a larger k and no filters, or lower rerank_depth",
        )


def _check_scored(made: ScoredHeads, questions: Questions, name: str) -> None:
    best = made.best_candidates
    missed = best[~made.is_scored[best]]
    # Filters take the most similar items first, however deep the head; an index finds these before all others.
    if made.share_scored >= LEAST_SCORED and len(missed) <= (1 - LEAST_SCORED) * len(best):
        return
    example = missed[0] if len(missed) else np.flatnonzero(~made.is_scored)[0]
    item = questions.items.ids[questions.item_rows[made.item_rows[example]]]
    raise StoreError(
        f"rankings hold {made.share_scored:.1%} of what {name} ranks highest, and the best candidate of {len(best) - len(missed)} "
        f"of {len(best)} {questions.direction} queries ({_query(questions, made.query_rows[example])} lacks {item!r})",
        expected=f"at least {LEAST_SCORED:.0%} of both",
        do="mine this split with the sampler top, no filters and an exact index, or one of higher recall; then run score-teacher",
    )


def _query(questions: Questions, row: np.int64) -> str:
    return repr(questions.queries.ids[questions.asked[row]])
