"""Which pairs the teacher must see, and in which order: each image once, and nothing that was ever scored.

A pair is one 64-bit number (see `pairs`). Requests are gathered in buckets of neighbouring images, each made unique for
itself, so that memory stays near what the different pairs themselves take: 8 bytes each.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.scoring.candidates import CandidatesPart
from cprd_pipeline.scoring.pairs import Codes, PairSpace
from cprd_pipeline.scoring.shards import EVERYTHING, Shard

_BUCKETS = 64
_SLICE = 1 << 22  # pairs looked at together where an array of all of them would double the memory

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Plan:
    """The work of a run, and what it does not have to do.

    Args:
        todo: Pairs to score, ascending, so that an image's pairs stand together; int64 [N].
        images: Image contents of `todo`, ascending, each once; int64 [G].
        ends: Where the pairs of each of them end in `todo`, int64 [G].
        requested: (query, item) entries of all lists, positives included.
        duplicate: Entries whose pair another entry names too (the other direction, equal content).
        stored: Different pairs that the store has.
        elsewhere: Different pairs that the store lacks and another shard scores.
    """

    todo: Codes
    images: Rows
    ends: Rows
    requested: int
    duplicate: int
    stored: int
    elsewhere: int

    def parts(self, part_pairs: int) -> Iterator[Codes]:
        """`todo` cut at image boundaries into pieces of at least `part_pairs` pairs (the last may be shorter).

        A piece ends with the image that fills it. So a run that goes on after whole pieces cuts the rest at the same places.
        """
        start = 0
        while start < len(self.todo):
            full = int(np.searchsorted(self.ends, start + part_pairs))
            stop = int(self.ends[min(full, len(self.ends) - 1)])
            yield self.todo[start:stop]
            start = stop


def image_ends(images: Rows) -> Rows:
    """Where the pairs of each image end; `images` ascends. int64 [number of images]."""
    return np.append(np.flatnonzero(np.diff(images)) + 1, [len(images)] if len(images) else []).astype(np.int64)


def wanted_pairs(parts: Iterable[CandidatesPart], space: PairSpace) -> tuple[Codes, int]:
    """All different pairs of candidates and positives, ascending, and how many entries named them.

    Args:
        parts: Of all directions.
        space: What their codes mean.
    """
    edges = np.linspace(0, len(space.images), _BUCKETS + 1).astype(np.int64)[1:-1] * len(space.captions)
    buckets: list[list[Codes]] = [[] for _ in range(_BUCKETS)]
    requested = 0
    for part in parts:
        entries = np.concatenate([part.candidates.codes, part.positives.codes])
        requested += len(entries)
        codes = np.unique(entries)
        for bucket, piece in zip(buckets, np.split(codes, np.searchsorted(codes, edges)), strict=True):
            # A copy: a view would keep the whole part alive until the last bucket is done.
            bucket.append(piece.copy())
    wanted = [np.empty(0, np.int64)]
    for bucket in buckets:
        wanted.append(np.unique(np.concatenate([np.empty(0, np.int64), *bucket])))
        bucket.clear()
    return np.concatenate(wanted), requested


def make_plan(wanted: Codes, requested: int, known: Codes, space: PairSpace, shard: Shard = EVERYTHING) -> Plan:
    """What is left to score.

    Args:
        wanted: As from `wanted_pairs`.
        requested: As from `wanted_pairs`.
        known: Pairs of the corpus that the store has, ascending and unique; int64.
        space: What the codes mean.
        shard: Which images are this run's.
    """
    mine = shard.owns(space.images.digests)
    todo: list[Codes] = [np.empty(0, np.int64)]
    stored = 0
    for start in range(0, len(wanted), _SLICE):
        piece = wanted[start : start + _SLICE]
        new = ~is_among(piece, known)
        stored += len(piece) - int(new.sum())
        todo.append(piece[new & mine[space.images_of(piece)]])
    left = np.concatenate(todo)
    ends = np.searchsorted(left, np.arange(1, len(space.images) + 1) * len(space.captions))
    asked = np.flatnonzero(np.diff(ends, prepend=0))
    elsewhere = len(wanted) - stored - len(left)
    return Plan(left, asked, ends[asked], requested, requested - len(wanted), stored, elsewhere)


def is_among(codes: Codes, known: Codes) -> Bools:
    """Whether each code occurs in `known`, which ascends; bool [N]."""
    place = np.searchsorted(known, codes)
    found = np.zeros(len(codes), dtype=np.bool_)
    inside = place < len(known)
    found[inside] = known[place[inside]] == codes[inside]
    return found
