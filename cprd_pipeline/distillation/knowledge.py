"""The rankings as something a batch can ask: which of its pairs does the teacher know, and what did it say?

Shape suffixes: B pairs of a batch (image i and caption i belong together), Q queries, N items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Corpus, Rows
from cprd_pipeline.distillation.batches import BatchRows
from cprd_pipeline.distillation.columns import Columns
from cprd_pipeline.distillation.pair_table import PairTable, PairTableBuilder, ScoredLists
from cprd_pipeline.distillation.ranking_parts import NEVER_VALID, Direction, RankingsPart, RankingsReader
from cprd_pipeline.distillation.turned_table import TurnedTable
from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.folder import InputFolder


class KnownPairs(NamedTuple):
    """What the teacher said about pairs of queries and items.

    Args:
        scores_QN: Teacher scores; float32, NaN where the pair was never scored.
        flagged_QN: Marked as a probable false negative.
    """

    scores_QN: npt.NDArray[np.float32]
    flagged_QN: npt.NDArray[np.bool_]

    @property
    def turned(self) -> "KnownPairs":
        """The same with items as rows."""
        return KnownPairs(self.scores_QN.T, self.flagged_QN.T)


class BatchKnowledge(NamedTuple):
    """What the teacher said about a batch, to those who ask.

    Args:
        i2t: Image by caption.
        t2i: Caption by image; the same scores, turned, unless they depend on who asks.
    """

    i2t: KnownPairs
    t2i: KnownPairs


@dataclass(frozen=True)
class TeacherKnowledge:
    """All scored pairs of some rankings, found by image and caption.

    Equal digests are one content: rows are mapped to the first row with the same digest.

    Args:
        i2t: What images that ask are told: image by caption.
        told_captions: What captions that ask are told, caption by image; None where it is the same, since the teacher's scores do
            not depend on who asks.
        image_cutoffs: Lowest valid score of each image row as a query; float32 [I], infinite where none is valid.
        caption_cutoffs: The same for caption rows; float32 [C].
        canonical_image: For each image row the first with its digest; int64 [I].
        canonical_caption: The same for captions; int64 [C].
        teacher: Fingerprint of the teacher.
    """

    i2t: PairTable
    told_captions: PairTable | None
    image_cutoffs: npt.NDArray[np.float32]
    caption_cutoffs: npt.NDArray[np.float32]
    canonical_image: Rows
    canonical_caption: Rows
    teacher: str

    @classmethod
    def load(cls, folders: Sequence[InputFolder], corpus: Corpus) -> "TeacherKnowledge":
        """Read rankings of one corpus and one teacher.

        The parts are read twice, to count and to place: so that no more than the table itself is held.

        Args:
            folders: Rankings folders, at least one; where they overlap the lower cutoff counts.
            corpus: The corpus they were made from.

        Raises:
            StoreError: Another corpus, two teachers, an id that the corpus does not have, or no pair or no candidate at all.
        """
        teacher = _one_teacher(folders, corpus)
        reader = RankingsReader(folders, corpus)
        sizes = (len(corpus.images), len(corpus.captions))
        cutoffs = {"i2t": np.full(sizes[0], NEVER_VALID), "t2i": np.full(sizes[1], NEVER_VALID)}
        told_images = PairTableBuilder(*sizes)
        told_captions = PairTableBuilder(*sizes[::-1]) if _asker_matters(folders) else None
        candidates = 0
        for part in reader.parts():
            np.minimum.at(cutoffs[part.direction], part.query_rows, part.cutoffs)
            candidates += part.candidates
            building, rows, _ = _destination(part, told_images, told_captions)
            building.count(rows)
        for part in reader.parts():
            building, rows, items = _destination(part, told_images, told_captions)
            building.place(rows, items, part.scores, part.flagged)
        i2t, own = told_images.finish(), told_captions.finish() if told_captions else None
        _check_content(folders[0].path, i2t, own, candidates)
        canonical = (corpus.images.first_with_digest, corpus.captions.first_with_digest)
        return cls(i2t, own, cutoffs["i2t"], cutoffs["t2i"], *canonical, teacher)

    @cached_property
    def t2i(self) -> ScoredLists:
        """Caption by image; where it is no table of its own, another order of the images' table, made when it is first needed."""
        return TurnedTable.of_table(self.i2t) if self.told_captions is None else self.told_captions

    @property
    def pairs(self) -> int:
        """Number of scores known."""
        return self.i2t.pairs + (self.told_captions.pairs if self.told_captions is not None else 0)

    def lists(self, direction: Direction) -> ScoredLists:
        """Query by item for one direction; its rows and items are canonical rows.

        Args:
            direction: Who asks. For captions the lists are made when they are first asked for.
        """
        return self.i2t if direction == "i2t" else self.t2i

    def knows(self, images: Rows) -> bool:
        """Whether any pair of these image rows was scored."""
        canonical = self.canonical_image[images]
        if (np.diff(self.i2t.starts)[canonical] > 0).any():
            return True
        return self.told_captions is not None and bool(self.told_captions.named[canonical].any())

    def among(self, rows: BatchRows) -> BatchKnowledge:
        """Look up every pair of a batch."""
        told = self.i2t_scores(rows.images, rows.captions)
        if self.told_captions is None:
            return BatchKnowledge(told, told.turned)
        return BatchKnowledge(told, self.t2i_scores(rows.captions, rows.images))

    def i2t_scores(self, images: Rows, captions: Rows) -> KnownPairs:
        """What images that ask are told about captions.

        Cost grows with the scored pairs of the images, not with all pairs nor with the corpus.

        Args:
            images: Corpus rows in any order, repeated or not; int64 [Q].
            captions: The same; int64 [N].
        """
        return _look_up(self.i2t, self.canonical_image[images], self.canonical_caption[captions])

    def t2i_scores(self, captions: Rows, images: Rows) -> KnownPairs:
        """What captions that ask are told about images.

        Where the teacher does not care who asks and `t2i` was never needed, cost grows with the scored pairs of the images:
        that is cheap for a batch, and spares the second order.

        Args:
            captions: Corpus rows in any order, repeated or not; int64 [Q].
            images: The same; int64 [N].
        """
        if self.told_captions is None and "t2i" not in vars(self):
            return self.i2t_scores(images, captions).turned
        return _look_up(self.t2i, self.canonical_caption[captions], self.canonical_image[images])


def _look_up(table: ScoredLists, queries: Rows, items: Rows) -> KnownPairs:
    columns, pairs = Columns(items), table.of(queries)
    hit, place = columns.find(pairs.items)
    scores = np.full((len(queries), columns.different), np.nan, dtype=np.float32)
    flagged = np.zeros(scores.shape, dtype=np.bool_)
    cells = (pairs.owner[hit], place)
    scores[cells], flagged[cells] = pairs.scores[hit], pairs.flagged[hit]
    return KnownPairs(columns.spread(scores), columns.spread(flagged))


def _destination(
    part: RankingsPart, told_images: PairTableBuilder, told_captions: PairTableBuilder | None
) -> tuple[PairTableBuilder, Rows, Rows]:
    """Which table a part's pairs go to, and its rows and items."""
    if part.direction == "i2t":
        return told_images, part.queries, part.items
    if told_captions is None:
        return told_images, part.items, part.queries
    return told_captions, part.queries, part.items


def _check_content(where: Path, i2t: PairTable, told_captions: PairTable | None, candidates: int) -> None:
    if not i2t.pairs or (told_captions is not None and not told_captions.pairs):
        raise StoreError(f"{where}: no scored pair in it", do="check the candidates it was made from")
    if not candidates:
        raise StoreError(
            f"{where}: no query of the rankings has a candidate, only positives",
            expected="candidates, whose order the teacher knows",
            do="relax the filters of mine, or false_negatives: drop of score-teacher",
        )


def open_rankings(paths: Sequence[Path]) -> list[InputFolder]:
    """The rankings folders of a run."""
    return [InputFolder(path, "rankings") for path in paths]


def _one_teacher(folders: Sequence[InputFolder], corpus: Corpus) -> str:
    for folder in folders:
        made_from = folder.manifest.inputs["corpus"]
        if made_from != corpus.digest:
            raise StoreError(
                f"{folder.path}: rankings of another corpus ({made_from[:8]})",
                expected=f"of {corpus.path} ({corpus.digest[:8]})",
                do="run mine and score-teacher on this corpus; scores of equal content are reused",
            )
    teachers = {folder.manifest.inputs["teacher"]: folder.path for folder in folders}
    if len(teachers) > 1:
        raise StoreError(
            f"{' and '.join(str(path) for path in teachers.values())}: rankings of {len(teachers)} different teachers",
            expected="one teacher",
            do="name only folders that the same teacher scored",
        )
    return next(iter(teachers))


def _asker_matters(folders: Sequence[InputFolder]) -> bool:
    """Whether the teacher's scores depend on who asks; the folders are of one teacher, so they agree."""
    return folders[0].manifest.settings.get("roles") == "each"
