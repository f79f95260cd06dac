"""A small random world whose rankings are also plain dictionaries, for the tests of what meets in a step.

In it several rows hold the same content, scores have ties, pairs are flagged, positives are scored too or not at all, and some
rows lie outside the split.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cprd_pipeline.corpus.reader import Rows, Split
from cprd_pipeline.distillation.batches import BatchRows, Contents, PositivePairs
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.pair_table import PairTable, PairTableBuilder

IMAGES, CAPTIONS = 14, 22

Direction = Literal["i2t", "t2i"]
DIRECTIONS: tuple[Direction, Direction] = ("i2t", "t2i")
Said = dict[tuple[int, int], tuple[float, bool]]
"""Score and flag of each pair of canonical rows, the query first."""


@dataclass
class World:
    """What the stages hand over, and the same as dictionaries.

    Args:
        knowledge: Under test.
        positives: Under test.
        annotated: Pairs of canonical rows, the image first.
        said: By direction.
    """

    knowledge: TeacherKnowledge
    positives: PositivePairs
    annotated: set[tuple[int, int]]
    said: dict[Direction, Said]

    def content(self, direction: Direction, rows: Rows) -> list[int]:
        """Canonical rows of the items that a query of the direction meets."""
        of = self.knowledge.canonical_caption if direction == "i2t" else self.knowledge.canonical_image
        return [int(row) for row in of[rows]]

    def asking(self, direction: Direction, rows: Rows) -> list[int]:
        """Canonical rows of queries."""
        return self.content("t2i" if direction == "i2t" else "i2t", rows)

    def is_annotated(self, direction: Direction, query: int, item: int) -> bool:
        """Whether two contents are an annotated pair."""
        return ((query, item) if direction == "i2t" else (item, query)) in self.annotated

    def is_flagged(self, direction: Direction, query: int, item: int) -> bool:
        """Whether two contents are a probable false negative to either side."""
        other: Direction = "t2i" if direction == "i2t" else "i2t"
        return self.said[direction].get((query, item), (0, False))[1] or self.said[other].get((item, query), (0, False))[1]

    def candidates(self, direction: Direction, query: int) -> list[int]:
        """Contents that the teacher scored for a query and that are not annotated for it, best first, ties by row."""
        said = self.said[direction]
        found = [item for asking, item in said if asking == query and not self.is_annotated(direction, query, item)]
        return sorted(found, key=lambda item: (-said[query, item][0], item))


def random_world(seed: int, *, each: bool = False) -> World:
    """A world.

    Args:
        seed: Of everything.
        each: The teacher's scores depend on who asks.
    """
    random = np.random.default_rng(seed)
    canonical_image, canonical_caption = _contents(random, IMAGES), _contents(random, CAPTIONS)
    images, captions = np.unique(canonical_image).tolist(), np.unique(canonical_caption).tolist()
    annotated = {(image, caption) for image in images for caption in captions if random.random() < 0.12}
    annotated.add((images[0], captions[0]))
    i2t = _said(random, images, captions)
    t2i = _said(random, captions, images) if each else {(item, query): told for (query, item), told in i2t.items()}
    cutoffs = [np.where(random.random(n) < 0.3, np.inf, random.integers(-2, 3, n)).astype(np.float32) for n in (IMAGES, CAPTIONS)]
    own = _table(t2i, CAPTIONS, IMAGES) if each else None
    told = TeacherKnowledge(_table(i2t, IMAGES, CAPTIONS), own, *cutoffs, canonical_image, canonical_caption, "teacher")
    # One row of a content in the split is enough: the others are recognised by it.
    pairs = np.array(sorted(annotated), dtype=np.int64)
    split = Split("train", np.unique(pairs[:, 0]), np.unique(pairs[:, 1]), pairs)
    positives = PositivePairs(split, CAPTIONS, Contents(canonical_image, canonical_caption))
    return World(told, positives, annotated, {"i2t": i2t, "t2i": t2i})


def random_batch(seed: int, size: int = 6) -> BatchRows:
    """Any rows, repeated contents among them; two in three are pairs, annotated or drawn."""
    random = np.random.default_rng([seed, 1])
    return BatchRows(random.integers(0, IMAGES, size), random.integers(0, CAPTIONS, size), random.random(size) < 0.67)


def _contents(random: np.random.Generator, count: int) -> Rows:
    names = random.integers(0, count * 2 // 3, count)
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    found: Rows = first[inverse].astype(np.int64)
    return found


def _said(random: np.random.Generator, queries: list[int], items: list[int]) -> Said:
    pairs = [(query, item) for query in queries for item in items if random.random() < 0.4]
    return {pair: (float(random.integers(-4, 5)), bool(random.random() < 0.2)) for pair in pairs or [(queries[0], items[0])]}


def _table(said: Said, rows: int, width: int) -> PairTable:
    queries, items = np.array(list(said), dtype=np.int64).T
    scores, flagged = zip(*said.values(), strict=True)
    building = PairTableBuilder(rows, width)
    building.count(queries)
    building.place(queries, items, np.array(scores, dtype=np.float32), np.array(flagged, dtype=np.bool_))
    return building.finish()
