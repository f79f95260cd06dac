"""The definitions of the metrics as plain loops, to hold the fast ones against."""

import math

import numpy as np

from cprd_pipeline.metrics.positives import Positives


def slow_similarity(a, b):
    """Dot product of two float32 vectors, the exact sum rounded to float32 once."""
    return np.float32(math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True)))


def slow_ranks(similarities, positives):
    """Ranks of one query's positives, ascending; among equals whatever is no positive comes first."""
    order = sorted(range(len(similarities)), key=lambda item: (-similarities[item], item in positives))
    return [place for place, item in enumerate(order, 1) if item in positives]


def slow_metrics(ranks):
    """Rank of the first positive, AP@R, R-precision and nDCG@10 of one query."""
    r = len(ranks)
    return {
        "rank": ranks[0],
        "average_precision": sum(nth / rank for nth, rank in enumerate(ranks, 1) if rank <= r) / r,
        "r_precision": sum(rank <= r for rank in ranks) / r,
        "ndcg": sum(1 / math.log2(rank + 1) for rank in ranks if rank <= 10)
        / sum(1 / math.log2(place + 1) for place in range(1, min(r, 10) + 1)),
    }


def positives_of(pairs, queries, items):
    """Positives from a list of pairs."""
    return Positives.from_pairs(np.array(pairs, dtype=np.int64).reshape(-1, 2), queries, items)


def vectors(*rows):
    """Embeddings by hand."""
    return np.array(rows, dtype=np.float32)
