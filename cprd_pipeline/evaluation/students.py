"""Students as their embeddings of a split, and how they answer its questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.errors import ModelError, StoreError
from cprd_pipeline.evaluation.questions import Direction, Questions
from cprd_pipeline.evaluation.settings import EvaluateSettings
from cprd_pipeline.metrics.graded import ndcg_of_embeddings
from cprd_pipeline.metrics.positives import Positives
from cprd_pipeline.metrics.ranking import rank_both_directions
from cprd_pipeline.models.device import choose_device, choose_dtype
from cprd_pipeline.models.dual_encoder import encoder_fingerprint
from cprd_pipeline.models.embeddings import embed_corpus
from cprd_pipeline.store.folder import read_manifest
from cprd_pipeline.store.places import MANIFEST
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


def check_corpus(settings: EvaluateSettings, corpus: Corpus) -> None:
    """Refuse students that `distill` trained on another corpus, whose test split this one's may have been trained on.

    Models that were not made here tell nothing about their data, and pass.

    Raises:
        StoreError: Such a student, unless the settings allow it.
    """
    if settings.other_corpus == "allow":
        return
    for name, encoder in settings.students.items():
        folder = Path(encoder)
        if not (folder / MANIFEST).is_file():
            continue
        made_from = read_manifest(folder, "student").inputs.get("corpus", "unknown")
        if made_from != corpus.digest:
            raise StoreError(
                f"student {name}: trained on another corpus ({made_from[:8]})",
                expected=f"one trained on {corpus.path} ({corpus.digest[:8]}), or other_corpus=allow",
                do="train it again, or allow it in the settings when its training data and this split are apart",
            )


def answer(
    student: EmbeddedStudent, questions: Sequence[Questions], positives: Positives, relevance: FloatArray | None
) -> pa.Table:
    """Ranks and nDCG of every asked query.

    Args:
        student: The student.
        questions: Both directions, `i2t` first.
        positives: Captions of each image of the split.
        relevance: True graded relevance of the split's images by its captions, in [0, 1]; None when it is not known.
    """
    tables = []
    for asked, ranked in zip(questions, rank_both_directions(student.images, student.captions, positives), strict=True):
        ndcg = None
        if relevance is not None:
            queries, items = student.sides(asked.direction)
            ndcg = ndcg_of_embeddings(queries[asked.asked_places], items, asked.orient(relevance))
        tables.append(results_table(student.name, asked, ranked.ranks, ndcg))
    return pa.concat_tables(tables)


def results_table(model: str, questions: Questions, ranks: npt.NDArray[np.int64], ndcg: npt.NDArray[np.float64] | None) -> pa.Table:
    """Per-query results of one model in one direction, as they are kept.

    Args:
        model: Its name.
        questions: The direction.
        ranks: Of each of `questions.positives.items`; int64 [P].
        ndcg: Of each asked query, where the true relevance is known.
    """
    count = len(questions.asked)
    offsets = questions.positives.offsets
    columns = {
        "query_id": [questions.queries.ids[row] for row in questions.asked],
        "direction": [questions.direction] * count,
        "model": [model] * count,
        "group": questions.groups.astype(np.int32),
        "rank": np.minimum.reduceat(ranks, offsets[:-1]).astype(np.int32),
        "positive_ranks": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(ranks, pa.int32())),
        "ndcg": pa.nulls(count, pa.float64()) if ndcg is None else ndcg,
    }
    return pa.table(columns, schema=EVALUATED_QUERIES)
