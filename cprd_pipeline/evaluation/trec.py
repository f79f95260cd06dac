"""Run and relevance files in TREC's format, for anybody's own tools."""

from cprd_pipeline.evaluation.questions import Questions
from cprd_pipeline.evaluation.students import EmbeddedStudent
from cprd_pipeline.metrics.heads import heads


def run_file(student: EmbeddedStudent, questions: Questions, depth: int) -> bytes:
    """The head of each asked query's list: `query Q0 item rank similarity model`, one line an item.

    Args:
        student: The student.
        questions: The direction.
        depth: Items a query.
    """
    queries, items = student.sides(questions.direction)
    lines = []
    for row, head in zip(questions.asked, heads(queries[questions.asked_places], items, depth), strict=True):
        query = _word(questions.queries.ids[row])
        for rank, (item, similarity) in enumerate(zip(head.items, head.similarities, strict=True), 1):
            name = _word(questions.items.ids[questions.item_rows[item]])
            lines.append(f"{query} Q0 {name} {rank} {similarity:.9g} {student.name}\n")
    return "".join(lines).encode()


def relevance_file(questions: Questions) -> bytes:
    """The positives: `query 0 item 1`, one line each."""
    positives = questions.positives
    return "".join(
        f"{_word(questions.queries.ids[questions.asked[query]])} 0 {_word(questions.items.ids[questions.item_rows[item]])} 1\n"
        for query, item in zip(positives.queries, positives.items, strict=True)
    ).encode()


def _word(name: str) -> str:
    """An id without white space, which separates the columns."""
    return "_".join(name.split())
