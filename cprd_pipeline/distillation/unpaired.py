"""Images without captions and captions without images: queries whose partner the teacher's scores suggest.

Shape suffixes: Q drawn queries, L entries of their lists.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Corpus, Rows, Split
from cprd_pipeline.distillation.batches import BatchRows
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.loop_settings import Unpaired
from cprd_pipeline.distillation.pair_table import ScoredLists, row_blocks
from cprd_pipeline.distillation.ranking_parts import Direction
from cprd_pipeline.distillation.selection import first_of_each
from cprd_pipeline.errors import CorpusError, StoreError

_EPOCH_ORDER, _PARTNER = 51, 52
_ABSENT = -1


class UnpairedPools:
    """The unpaired images and captions of a split, drawn in proportion to their numbers, each once before any comes again.

    Equal digests are one content: an item that shares its content with an annotated one is not unpaired, and of several unpaired
    ones with the same content the first stands for all. Partners are the scored items of the query that are in the split; one that
    is flagged as a probable false negative may be drawn, since the flag says that it matches.

    Args:
        corpus: Contents.
        split: What is trained on.
        knowledge: The rankings' content.
        settings: How partners are drawn.
        seed: Of the draws.

    Raises:
        CorpusError: The split has no unpaired item.
        StoreError: The rankings know no possible partner of any.
    """

    def __init__(self, corpus: Corpus, split: Split, knowledge: TeacherKnowledge, settings: Unpaired, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        images = _Side(split.images, split.positives[:, 0], corpus.images.first_with_digest)
        captions = _Side(split.captions, split.positives[:, 1], corpus.captions.first_with_digest)
        if not len(images.unpaired) and not len(captions.unpaired):
            elsewhere = _splits_with_unpaired(corpus)
            make = (
                f"set unpaired.split to {' or '.join(elsewhere)}" if elsewhere else "prepare the corpus with files.unpaired: keep"
            )
            raise CorpusError(
                f"split {split.name} has no unpaired image and no unpaired caption, unpaired.share is {settings.share:g}",
                expected="some of them",
                do=f"{make}, or set unpaired.share to 0",
            )
        floor = -np.inf if settings.positive == "none" else settings.floor
        self._images = _Pool(images, captions, knowledge, "i2t", floor)
        self._captions = _Pool(captions, images, knowledge, "t2i", floor)
        if not len(self):
            raise StoreError(
                f"none of the {len(images.unpaired) + len(captions.unpaired):,} unpaired items of split {split.name} has a partner "
                f"with a teacher score of at least {floor:g}",
                expected="candidates of unpaired items too",
                do="mine and score them, lower unpaired.floor, or set unpaired.share to 0",
            )
        self._order: tuple[int, Rows] | None = None

    def __len__(self) -> int:
        return len(self._images.queries) + len(self._captions.queries)

    @property
    def image_rows(self) -> Rows:
        """All image rows that can be drawn, as queries or as partners; int64."""
        return np.union1d(self._images.queries, self._captions.partners)

    @property
    def counts(self) -> dict[str, int]:
        """For the report: queries of both pools, and what was left out."""
        pools = (self._images, self._captions)
        return {
            "images": len(self._images.queries),
            "captions": len(self._captions.queries),
            "without_candidates": sum(pool.without_candidates for pool in pools),
            "below_floor": sum(pool.below_floor for pool in pools),
        }

    def draw(self, step: int, count: int) -> BatchRows:
        """Queries of one step with their partners, all different.

        Args:
            step: Counted from 0.
            count: Queries a step, at most `len(self)`; the same at every step.
        """
        epoch, position = divmod(step, len(self) // count)
        chosen = np.sort(self._epoch(epoch)[position * count : (position + 1) * count])
        images = len(self._images.queries)
        random = np.random.default_rng([self._seed, _PARTNER, step])
        asked = [(self._images, chosen[chosen < images]), (self._captions, chosen[chosen >= images] - images)]
        queries = [pool.queries[places] for pool, places in asked]
        partners = [self._partners(pool, places, random) for pool, places in asked]
        paired = np.full(count, self._settings.positive != "none")
        return BatchRows(np.concatenate([queries[0], partners[1]]), np.concatenate([partners[0], queries[1]]), paired)

    def _partners(self, pool: "_Pool", places: Rows, random: np.random.Generator) -> Rows:
        """One item of each query's list, int64 [Q]: by the softmax of the scores, or the first."""
        owner, items, scores = pool.lists(pool.queries[places])
        if self._settings.positive == "top1":
            return items[first_of_each(owner, 1)]
        # The largest of logits with Gumbel noise is a draw from their softmax.
        noisy = scores / self._settings.temperature + random.gumbel(size=len(scores))
        order = np.lexsort((-noisy, owner))
        return items[order][first_of_each(owner[order], 1)]

    def _epoch(self, epoch: int) -> Rows:
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self._seed, _EPOCH_ORDER, epoch]).permutation(len(self)))
        return self._order[1]


def _splits_with_unpaired(corpus: Corpus) -> list[str]:
    """Splits with an item that no annotation pairs."""
    sides = enumerate((corpus.images, corpus.captions))
    return sorted({name for n, side in sides for name in np.delete(side.splits, corpus.positives[:, n]).tolist()})


class _Side:
    """Images or captions of the split.

    Args:
        rows: Of the split.
        annotated: Rows of its positives.
        canonical: For each row of the corpus the first with its digest.
    """

    def __init__(self, rows: Rows, annotated: Rows, canonical: Rows) -> None:
        self.canonical = canonical
        contents, first = np.unique(canonical[rows], return_index=True)
        self.unpaired = rows[first[~np.isin(contents, canonical[annotated])]]
        # Of the split, whatever rows of other splits hold the same.
        self.row_of = np.full(len(canonical), _ABSENT, dtype=np.int64)
        self.row_of[contents] = rows[first]


class _Lists(NamedTuple):
    """Possible partners, the best first: query ascending int64 [L], corpus row int64 [L], float32 [L]."""

    owner: Rows
    items: Rows
    scores: npt.NDArray[np.float32]


class _Pool:
    """The unpaired queries of one side that have a possible partner."""

    def __init__(self, asking: _Side, asked: _Side, knowledge: TeacherKnowledge, direction: Direction, floor: float) -> None:
        self._asking, self._asked, self._floor = asking, asked, floor
        self._table: ScoredLists | None = None
        self.queries, self.partners = asking.unpaired, np.empty(0, dtype=np.int64)
        self.without_candidates = self.below_floor = 0
        if len(asking.unpaired):
            # Not before: the captions' order takes time and memory to make.
            self._table = knowledge.lists(direction)
            self._keep_usable()

    def lists(self, queries: Rows) -> _Lists:
        """Possible partners of some queries."""
        found = self._in_split(queries)
        high = found.scores >= self._floor
        return _Lists(found.owner[high], found.items[high], found.scores[high])

    def _in_split(self, queries: Rows) -> _Lists:
        assert self._table is not None
        found = self._table.of(self._asking.canonical[queries])
        rows = self._asked.row_of[found.items]
        there = rows != _ABSENT
        return _Lists(found.owner[there], rows[there], found.scores[there])

    def _keep_usable(self) -> None:
        assert self._table is not None
        queries = self._asking.unpaired
        lengths = np.diff(self._table.starts)[self._asking.canonical[queries]]
        usable, listed = np.zeros((2, len(queries)), dtype=np.bool_)
        partner = np.zeros(len(self._asked.row_of), dtype=np.bool_)
        for block in row_blocks(np.append(0, np.cumsum(lengths))):
            found = self._in_split(queries[block])
            high = found.scores >= self._floor
            listed[block[found.owner]] = True
            usable[block[found.owner[high]]] = True
            partner[found.items[high]] = True
        self.queries, self.partners = queries[usable], np.flatnonzero(partner)
        self.without_candidates, self.below_floor = int((~listed).sum()), int((listed & ~usable).sum())
