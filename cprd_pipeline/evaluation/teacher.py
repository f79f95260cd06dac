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
from cprd_pipeline.metrics.ranking import RankedPositives
from cprd_pipeline.metrics.reranking import ScoredLists, rerank, reranked_positives
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


def rerank_questions(
    base: RankedPositives,
    questions: Questions,
    rankings: DirectionRankings,
    relevance: FloatArray | None,
    depth: int,
) -> pa.Table:
    """Ranks and nDCG of every asked query when the teacher reorders the base student's first `depth` items.

    Args:
        base: Ranks of the positives by the student that mined the rankings, kept below the head.
        questions: The direction.
        rankings: The rankings of the direction.
        relevance: As in `answer`.
        depth: Items that the teacher reorders.

    Raises:
        StoreError: The rankings lack a query or a positive, or their lists are shorter than `depth`.
    """
    lists = _scored_lists(questions, rankings)
    _check_complete(questions, lists, depth)
    head = rerank(lists, depth)
    ndcg = None
    if relevance is not None:
        gains = gain(questions.orient(relevance))
        chosen = gains[head.query_rows, head.item_rows]
        ndcg = ndcg_of_lists(head.query_rows, head.teacher_scores, chosen, ideal_dcg(gains))
    return results_table(TEACHER, questions, reranked_positives(head, base, depth).ranks, ndcg)


def _similarities(student: EmbeddedStudent, questions: Questions, lists: Lists) -> FloatArray:
    queries, items = student.sides(questions.direction)
    query_places = np.searchsorted(questions.query_rows, lists.queries)
    return pair_similarities(queries, items, query_places, np.searchsorted(questions.item_rows, lists.items))


def _as_lists(lengths: Rows, values: FloatArray) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, pa.float32()))


def _scored_lists(questions: Questions, rankings: DirectionRankings) -> ScoredLists:
    """Candidates and positives of the asked queries, every copy of a content included.

    Candidates are distinct by digest, yet each copy takes a place of its own in a list of all items.
    """
    both = (rankings.candidates, rankings.positives)
    queries = np.concatenate([lists.queries for lists in both])
    contents = questions.items.first_with_digest[np.concatenate([lists.items for lists in both])]
    asked = np.flatnonzero(np.isin(queries, questions.asked))
    codes = queries[asked] * len(questions.items) + contents[asked]
    first = asked[np.unique(codes, return_index=True)[1]]
    copies, copy_of = _copies(questions, contents[first])
    source = first[copy_of]
    query_places = np.searchsorted(questions.asked, queries[source])
    return ScoredLists(
        query_places,
        copies,
        np.concatenate([lists.similarities for lists in both])[source],
        np.concatenate([lists.teacher_scores for lists in both])[source],
        questions.positives.contain(query_places, copies),
    )


def _copies(questions: Questions, contents: Rows) -> tuple[Rows, Rows]:
    """Positions in `item_rows` of all items with each content, and which content each copy belongs to."""
    content_of_item = questions.items.first_with_digest[questions.item_rows]
    by_content = np.argsort(content_of_item, kind="stable")
    starts = np.searchsorted(content_of_item[by_content], contents, side="left")
    counts = np.searchsorted(content_of_item[by_content], contents, side="right") - starts
    copy_of = np.repeat(np.arange(len(contents)), counts)
    within = np.arange(len(copy_of)) - np.repeat(np.cumsum(counts) - counts, counts)
    return by_content[starts[copy_of] + within], copy_of


def _check_complete(questions: Questions, lists: ScoredLists, depth: int) -> None:
    """The head is exact only when everything that could be in it was mined and scored."""
    listed = np.bincount(lists.query_rows, minlength=len(questions.asked))
    scored = np.bincount(lists.query_rows[lists.is_positive], minlength=len(questions.asked))
    lacking = np.flatnonzero(scored < questions.positives.counts)
    if len(lacking):
        raise StoreError(
            f"rankings have no score for a positive of {len(lacking)} of {len(questions.asked)} {questions.direction} queries, "
            f"the first {questions.queries.ids[questions.asked[lacking[0]]]!r}",
            expected="every query of the split with all its positives",
            do="run mine and score-teacher for this split again",
        )
    short = np.flatnonzero((listed - scored < depth) & (listed < len(questions.item_rows)))
    if len(short):
        first = short[0]
        raise StoreError(
            f"rankings list {listed[first] - scored[first]} candidates for {questions.direction} query "
            f"{questions.queries.ids[questions.asked[first]]!r}",
            expected=f"at least rerank_depth = {depth}",
            do="mine this split with a larger k, or lower rerank_depth",
        )
