"""Teacher knowledge made by hand, without files."""

from collections.abc import Mapping

import numpy as np

from cprd_pipeline.corpus.reader import Rows, Split
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.pair_table import PairTable, PairTableBuilder

Known = Mapping[tuple[int, int], float]


def table_of(known: Known, rows: int, width: int) -> PairTable:
    """A table of (row, item) -> score without flags."""
    pairs = np.array([*known], dtype=np.int64).reshape(-1, 2)
    building = PairTableBuilder(rows, width)
    building.count(pairs[:, 0])
    building.place(*pairs.T, np.array([*known.values()], dtype=np.float32), np.zeros(len(pairs), dtype=np.bool_))
    return building.finish()


def knowledge_of(known: Known, images: Rows, captions: Rows, told_captions: Known | None = None) -> TeacherKnowledge:
    """What is known of (canonical image, canonical caption), and of (caption, image) where the asker matters.

    Args:
        known: Scores.
        images: Canonical row of each image.
        captions: Canonical row of each caption.
        told_captions: Scores.
    """
    own = None if told_captions is None else table_of(told_captions, len(captions), len(images))
    cutoffs = [np.full(len(rows), np.inf, dtype=np.float32) for rows in (images, captions)]
    return TeacherKnowledge(table_of(known, len(images), len(captions)), own, *cutoffs, images, captions, "t")


def split_of(pairs: list[tuple[int, int]], images: int = 0, captions: int = 0) -> Split:
    """A split with these positives; rows up to the given numbers, or those of the positives."""
    positives = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    rows = np.arange(images) if images else np.unique(positives[:, 0])
    return Split("train", rows, np.arange(captions) if captions else np.unique(positives[:, 1]), positives)


def clustered(images: int, size: int, seed: int = 0) -> tuple[TeacherKnowledge, Split]:
    """Images with two captions each, in clusters; of the pairs of a cluster most are known, of all others none."""
    draws = np.random.default_rng(seed)
    cluster = draws.permutation(images) // size
    split = split_of([(image, 2 * image + caption) for image in range(images) for caption in range(2)])
    known = {
        (int(image), int(caption)): float(draws.normal())
        for image in range(images)
        for caption in range(2 * images)
        if cluster[image] == cluster[caption // 2] and draws.random() < 0.8
    }
    return knowledge_of(known, np.arange(images), np.arange(2 * images)), split
