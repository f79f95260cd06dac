"""The teacher reranking the head of a student's lists: what distillation into its place could reach.

No teacher is loaded; its scores are read from the split's rankings.
"""

import numpy as np
import pyarrow as pa

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.errors import StoreError
from cprd_pipeline.evaluation.questions import Questions
from cprd_pipeline.evaluation.rankings import DirectionRankings, Lists
from cprd_pipeline.evaluation.settings import TEACHER
from cprd_pipeline.evaluation.students import EmbeddedStudent, FloatArray, results_table
from cprd_pipeline.metrics.graded import gain, ideal_dcg, ndcg_of_lists
from cprd_pipeline.metrics.partial_reranking import ScoredHeads, reranked_places, reranked_positives
from cprd_pipeline.metrics.ranking import RankedPositives
from cprd_pipeline.metrics.similarities import pair_similarities
from cprd_pipeline.store.schemas import EVALUATED_LISTS

# Similarities of one student computed with another number type lie this close on average; another student's do not.
_SAME_STUDENT = 0.01


def list_similarities(student: EmbeddedStudent, questions: Questions, rankings: DirectionRankings) -> pa.Table:
    """The student's own similarities of everything in the rankings, in the rankings' order."""
    count = len(rankings.query_ids)
    columns = {
        "query_id": rankings.query_ids,
        "direction": [questions.direction] * count,
        "model": [student.name] * count,
        "candidate_similarities": _as_lists(rankings.candidates.lengths, _similarities(student, questions, rankings.candidates)),
        "positive_similarities": _as_lists(rankings.positives.lengths, _similarities(student, questions, rankings.positives)),
    }
    return pa.table(columns, schema=EVALUATED_LISTS)


def check_mined_by(base_lists: pa.Table, rankings: DirectionRankings) -> None:
    """Refuse to rerank the lists of a student that did not mine them.

    Args:
        base_lists: What `list_similarities` gave for the student, of the same direction.
        rankings: The rankings of the direction.

    Raises:
        StoreError: The student's similarities are not those of the rankings.
    """
    own = base_lists["candidate_similarities"].combine_chunks().flatten().to_numpy()
    difference = np.abs(own - rankings.candidates.similarities)
    if difference.size and difference.mean() > _SAME_STUDENT:
        raise StoreError(
            f"student {base_lists['model'][0]} disagrees with the rankings' similarities by {difference.mean():.3f} on average",
            expected="rankings of candidates that this student mined",
            do="set reranked to the student that mined them, or run mine and score-teacher for this split again",
        )


def rerank_questions(base: RankedPositives, heads: ScoredHeads, questions: Questions, relevance: FloatArray | None) -> pa.Table:
    """Ranks and nDCG of every asked query when the teacher reorders what it scored of the base student's heads.

    Args:
        base: Ranks of the positives by the student that mined the rankings, kept below the head.
        heads: The heads of its lists.
        questions: The direction.
        relevance: As in `answer`.
    """
    ndcg = None
    if relevance is not None:
        gains = gain(questions.orient(relevance))
        chosen = gains[heads.query_rows, heads.item_rows]
        order = -reranked_places(heads, chosen).astype(np.float32)
        ndcg = ndcg_of_lists(heads.query_rows, order, chosen, ideal_dcg(gains))
    return results_table(TEACHER, questions, reranked_positives(heads, base).ranks, ndcg)


def _similarities(student: EmbeddedStudent, questions: Questions, lists: Lists) -> FloatArray:
    queries, items = student.sides(questions.direction)
    query_places = np.searchsorted(questions.query_rows, lists.queries)
    return pair_similarities(queries, items, query_places, np.searchsorted(questions.item_rows, lists.items))


def _as_lists(lengths: Rows, values: FloatArray) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, pa.float32()))
