"""Which pairs the teacher must see, and in which order: each image once, and nothing that was ever scored."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.scoring.candidates import CandidatesPart
from cprd_pipeline.scoring.pairs import Codes, PairSpace


@dataclass(frozen=True)
class Plan:
    """The work of a run, and what it does not have to do.

    Args:
        todo: Pairs to score, ascending, so that an image's pairs stand together; int64 [N].
        requested: (query, item) entries of all lists, positives included.
        duplicate: Entries whose pair another entry names too (the other direction, equal content).
        stored: Different pairs that the store has.
    """

    todo: Codes
    requested: int
    duplicate: int
    stored: int

    def parts(self, space: PairSpace, part_pairs: int) -> Iterator[Codes]:
        """`todo` cut at image boundaries into pieces of at least `part_pairs` pairs (the last may be shorter).

        A piece ends with the image that fills it. So a run that goes on after whole pieces cuts the rest at the same places.
        """
        ends = image_ends(space.images_of(self.todo))
        start = 0
        while start < len(self.todo):
            full = int(np.searchsorted(ends, start + part_pairs))
            stop = int(ends[min(full, len(ends) - 1)])
            yield self.todo[start:stop]
            start = stop


def image_ends(images: Rows) -> Rows:
    """Where the pairs of each image end; `images` ascends. int64 [number of images]."""
    return np.append(np.flatnonzero(np.diff(images)) + 1, [len(images)] if len(images) else []).astype(np.int64)


def wanted_pairs(parts: Iterable[CandidatesPart]) -> tuple[Codes, int]:
    """All different pairs of candidates and positives, ascending, and how many entries named them."""
    codes: list[Codes] = []
    requested = 0
    for part in parts:
        entries = np.concatenate([part.candidates.codes, part.positives.codes])
        requested += len(entries)
        # Made unique part by part: the lists of both directions together would be twice as large.
        codes.append(np.unique(entries))
    return np.unique(np.concatenate([np.empty(0, np.int64), *codes])), requested


def make_plan(wanted: Codes, requested: int, known: Codes) -> Plan:
    """What is left to score.

    Args:
        wanted: As from `wanted_pairs`.
        requested: As from `wanted_pairs`.
        known: Pairs of the corpus that the store has, ascending and unique; int64.
    """
    todo = np.setdiff1d(wanted, known, assume_unique=True)
    return Plan(todo, requested, requested - len(wanted), len(wanted) - len(todo))
