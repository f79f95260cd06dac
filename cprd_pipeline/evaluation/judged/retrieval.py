"""Retrieval with judged positives: who asks, what can be found, and how well it was found."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from cprd_pipeline.corpus.reader import Corpus, Rows, Split
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.result import PerQuery
from cprd_pipeline.evaluation.questions import Direction
from cprd_pipeline.evaluation.students import EmbeddedStudent
from cprd_pipeline.metrics.positives import Positives
from cprd_pipeline.metrics.ranking import rank_positives
from cprd_pipeline.metrics.retrieval import measure_queries


@dataclass(frozen=True)
class Pool:
    """What can be found: places in the split's sides, ascending.

    Args:
        images: int64 [I], places in `split.images`.
        captions: int64 [C], places in `split.captions`.
    """

    images: Rows
    captions: Rows


def answer_judged(
    student: EmbeddedStudent,
    corpus: Corpus,
    split: Split,
    direction: Direction,
    pairs: Int64[np.ndarray, "P 2"],
    pool: Pool,
) -> PerQuery:
    """Results of every query that has a judged positive in the pool.

    Args:
        student: Embeddings of the whole split.
        corpus: The corpus.
        split: The split.
        direction: Who asks.
        pairs: (query place, item place) in the split's sides; -1 for an unknown id. Pairs outside the pool are left out.
        pool: What can be found.

    Returns:
        `values()` of `cprd_pipeline.metrics.retrieval.MeasuredQueries`, in the order of the split's queries.

    Raises:
        CorpusError: No query is left.
    """
    sides = (corpus.images, split.images, pool.captions), (corpus.captions, split.captions, pool.images)
    queries, query_rows, pool_places = sides[direction == "t2i"]
    known = (pairs[:, 0] >= 0) & np.isin(pairs[:, 1], pool_places)
    if not known.any():
        raise CorpusError(
            f"no {direction} query of the judged set has a positive in split {split.name!r}",
            expected="at least one",
            do="choose the split that the set was judged on",
        )
    asked, items = np.unique(pairs[known, 0]), pairs[known, 1]
    places = np.stack([np.searchsorted(asked, pairs[known, 0]), np.searchsorted(pool_places, items)], axis=1)
    query_vectors, item_vectors = student.sides(direction)
    positives = Positives.from_pairs(places.astype(np.int64), len(asked), len(pool_places))
    measured = measure_queries(rank_positives(query_vectors[asked], item_vectors[pool_places], positives))
    values = {name: value.astype(np.float64) for name, value in measured.values().items()}
    return PerQuery([queries.ids[query_rows[place]] for place in asked], values)


def mean_values(queries: PerQuery, names: tuple[str, ...], prefix: str) -> dict[str, float]:
    """Means over the queries of some values, under `<prefix>_<name>`."""
    return {f"{prefix}_{name}": float(np.mean(queries.values[name])) for name in names}
