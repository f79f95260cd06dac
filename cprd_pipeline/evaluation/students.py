"""Students as their embeddings of a split, and how they answer its questions."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.errors import ModelError
from cprd_pipeline.evaluation.questions import Direction, Questions
from cprd_pipeline.evaluation.settings import EvaluateSettings
from cprd_pipeline.metrics.graded import ndcg_of_embeddings
from cprd_pipeline.metrics.retrieval import best_positive_ranks
from cprd_pipeline.models.device import choose_device, choose_dtype
from cprd_pipeline.models.dual_encoder import encoder_fingerprint
from cprd_pipeline.models.embeddings import embed_corpus
from cprd_pipeline.store.schemas import EVALUATED_QUERIES

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddedStudent:
    """A student's view of a split.

    Args:
        name: Its name in the settings.
        images: Embeddings of the split's images, float32 [I, D].
        captions: Embeddings of the split's captions, float32 [C, D].
    """

    name: str
    images: FloatArray
    captions: FloatArray

    def sides(self, direction: Direction) -> tuple[FloatArray, FloatArray]:
        """Embeddings of the queries' and of the items' side."""
        return (self.images, self.captions) if direction == "i2t" else (self.captions, self.images)


def embed_student(name: str, settings: EvaluateSettings, corpus: Corpus, split: Split) -> EmbeddedStudent:
    """Embed a split, from the cache where it is known.

    Raises:
        ModelError: No such model, or it embeds something as NaN or infinity.
    """
    device = choose_device(settings.device)
    found = embed_corpus(
        settings.students[name],
        corpus,
        split.images,
        split.captions,
        device=device,
        dtype=choose_dtype(settings.dtype, device),
        batch_size=settings.batch_size,
        workers=settings.workers,
    )
    return EmbeddedStudent(name, found.images, found.captions)


def student_fingerprints(settings: EvaluateSettings) -> dict[str, str]:
    """Fingerprint of each student, none of them loaded.

    Raises:
        ModelError: A student's folder is missing or holds no model; the message names the student.
    """
    dtype = choose_dtype(settings.dtype, choose_device(settings.device))
    fingerprints = {}
    for name, encoder in settings.students.items():
        try:
            fingerprints[name] = encoder_fingerprint(encoder, dtype)
        except ModelError as error:
            raise ModelError(f"student {name}: {error.found}", expected=error.expected, do=error.do) from error
    return fingerprints


def answer(student: EmbeddedStudent, questions: Questions, relevance: FloatArray | None) -> pa.Table:
    """Rank and nDCG of every asked query of one direction.

    Args:
        student: The student.
        questions: The direction.
        relevance: True graded relevance of the split's images by its captions, in [0, 1]; None when it is not known.
    """
    queries, items = student.sides(questions.direction)
    queries = queries[questions.asked_places]
    ndcg = None if relevance is None else ndcg_of_embeddings(queries, items, questions.orient(relevance))
    return results_table(student.name, questions, best_positive_ranks(queries, items, questions.positives), ndcg)


def results_table(model: str, questions: Questions, ranks: npt.NDArray[np.int64], ndcg: npt.NDArray[np.float64] | None) -> pa.Table:
    """Per-query results of one model in one direction, as they are kept."""
    count = len(questions.asked)
    columns = {
        "query_id": [questions.queries.ids[row] for row in questions.asked],
        "direction": [questions.direction] * count,
        "model": [model] * count,
        "rank": ranks.astype(np.int32),
        "ndcg": pa.nulls(count, pa.float64()) if ndcg is None else ndcg,
    }
    return pa.table(columns, schema=EVALUATED_QUERIES)
