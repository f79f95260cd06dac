"""The rankings as something a batch can ask: which of its pairs does the teacher know, and what did it say?

Shape suffixes: B pairs of a batch (image i and caption i belong together).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from cprd_pipeline.corpus.reader import Corpus, Items, Rows
from cprd_pipeline.distillation.batches import BatchRows
from cprd_pipeline.distillation.losses.lists import TeacherLists
from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.schemas import RANKINGS, check_schema

_NEVER_VALID = np.float32(np.inf)


class KnownPairs(NamedTuple):
    """What the teacher said about the pairs of a batch.

    Args:
        scores_BB: Teacher scores, image by caption; float32, NaN where the pair was never scored.
        flagged_BB: Marked as a probable false negative.
    """

    scores_BB: npt.NDArray[np.float32]
    flagged_BB: npt.NDArray[np.bool_]


class PairTable(NamedTuple):
    """Scored pairs of contents.

    Args:
        codes: Canonical image row * number of captions + canonical caption row, ascending, distinct; int64 [P].
        scores: Teacher score of each; float32 [P].
        flagged: Probable false negatives; bool [P].
    """

    codes: Rows
    scores: npt.NDArray[np.float32]
    flagged: npt.NDArray[np.bool_]


class BatchKnowledge(NamedTuple):
    """What the teacher said about a batch, to those who ask.

    Args:
        i2t: Image by caption.
        t2i: Caption by image; the same scores, turned, unless they depend on who asks.
    """

    i2t: KnownPairs
    t2i: KnownPairs

    @property
    def flagged(self) -> npt.NDArray[np.bool_]:
        """Marked as a probable false negative for either side; image by caption, bool [B, B]."""
        return self.i2t.flagged_BB | self.t2i.flagged_BB.T


@dataclass(frozen=True)
class TeacherKnowledge:
    """All scored pairs of some rankings, found by image and caption.

    Equal digests are one content: rows are mapped to the first row with the same digest.

    Args:
        i2t: What images that ask are told.
        t2i: What captions that ask are told: the same table, unless the teacher's scores depend on who asks.
        image_cutoffs: Lowest valid score of each image row as a query; float32 [I], infinite where none is valid.
        caption_cutoffs: The same for caption rows; float32 [C].
        canonical_image: For each image row the first with its digest; int64 [I].
        canonical_caption: The same for captions; int64 [C].
        teacher: Fingerprint of the teacher.
    """

    i2t: PairTable
    t2i: PairTable
    image_cutoffs: npt.NDArray[np.float32]
    caption_cutoffs: npt.NDArray[np.float32]
    canonical_image: Rows
    canonical_caption: Rows
    teacher: str

    @classmethod
    def load(cls, folders: Sequence[InputFolder], corpus: Corpus) -> "TeacherKnowledge":
        """Read rankings of one corpus and one teacher.

        Args:
            folders: Rankings folders, at least one; where they overlap the lower cutoff counts.
            corpus: The corpus they were made from.

        Raises:
            StoreError: Another corpus, two teachers, or no pair at all.
        """
        teacher = _one_teacher(folders, corpus)
        images, captions = corpus.images.first_with_digest, corpus.captions.first_with_digest
        cutoffs = {"i2t": np.full(len(images), _NEVER_VALID), "t2i": np.full(len(captions), _NEVER_VALID)}
        found: dict[str, list[_Pairs]] = {"i2t": [], "t2i": []}
        for folder in folders:
            for name in folder.part_names(""):
                table = check_schema(folder.table(name), RANKINGS, str(folder.path / name))
                for direction in ("i2t", "t2i"):
                    rows = table.filter(pc.equal(table["direction"], direction)).combine_chunks()
                    found[direction].extend(_pairs(rows, direction, corpus, str(folder.path / name)))
                    _lower_cutoffs(cutoffs[direction], rows, corpus.images if direction == "i2t" else corpus.captions)
        tables = [_merge(pairs, images, captions) for pairs in found.values()]
        if not _asker_matters(folders):
            tables = [_merge([*found["i2t"], *found["t2i"]], images, captions)] * 2
        if not all(len(table.codes) for table in tables):
            raise StoreError(f"{folders[0].path}: no scored pair in it", do="check the candidates it was made from")
        return cls(tables[0], tables[1], cutoffs["i2t"], cutoffs["t2i"], images, captions, teacher)

    @property
    def pairs(self) -> int:
        """Number of scores known."""
        return len(self.i2t.codes) + (len(self.t2i.codes) if self.t2i is not self.i2t else 0)

    def among(self, rows: BatchRows) -> BatchKnowledge:
        """Look up every pair of a batch.

        Cost grows with the scored pairs of the batch's images, not with all pairs nor with the corpus.
        """
        told = self._look_up(self.i2t, rows)
        turned = told if self.t2i is self.i2t else self._look_up(self.t2i, rows)
        return BatchKnowledge(told, KnownPairs(turned.scores_BB.T, turned.flagged_BB.T))

    def _look_up(self, table: PairTable, rows: BatchRows) -> KnownPairs:
        count = len(self.canonical_caption)
        images = self.canonical_image[rows.images]
        columns, column_of = np.unique(self.canonical_caption[rows.captions], return_inverse=True)
        starts, ends = np.searchsorted(table.codes, [images * count, (images + 1) * count])
        lengths = ends - starts
        flat = np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        captions = table.codes[flat] - np.repeat(images * count, lengths)
        place = np.minimum(np.searchsorted(columns, captions), len(columns) - 1)
        hit = columns[place] == captions
        row = np.repeat(np.arange(len(images)), lengths)[hit]
        scores = np.full((len(images), len(columns)), np.nan, dtype=np.float32)
        flagged = np.zeros(scores.shape, dtype=np.bool_)
        scores[row, place[hit]] = table.scores[flat[hit]]
        flagged[row, place[hit]] = table.flagged[flat[hit]]
        return KnownPairs(scores[:, column_of], flagged[:, column_of])


class ListRules(NamedTuple):
    """Which pairs enter the list of a query, and how; see `CprdSettings`."""

    valid: Literal["listed", "rankings"]
    positive_in_list: bool
    easy_negatives: Literal["in_batch", "none"]


def teacher_lists(
    known: KnownPairs, positive_BB: npt.NDArray[np.bool_], cutoffs_B: npt.NDArray[np.float32], rules: ListRules
) -> TeacherLists:
    """The lists of one direction: rows are queries, columns the items that met them in the batch.

    Args:
        known: Teacher's word on the pairs, queries as rows.
        positive_BB: Annotated pairs; never listed, but for the query's own positive when the rules say so.
        cutoffs_B: `valid_cutoff` of each query, infinite where none is valid.
        rules: Settings.
    """
    scored_BB = ~np.isnan(known.scores_BB)
    own_BB = np.eye(len(scored_BB), dtype=np.bool_) & scored_BB & rules.positive_in_list
    candidate_BB = scored_BB & ~positive_BB
    scores_BB = np.nan_to_num(known.scores_BB)
    valid_BB = candidate_BB if rules.valid == "listed" else candidate_BB & (scores_BB >= cutoffs_B[:, None])
    listed_BB = candidate_BB | own_BB
    easy_BB = ~listed_BB & ~positive_BB & ~known.flagged_BB & (rules.easy_negatives == "in_batch")
    return TeacherLists(*(torch.from_numpy(array) for array in (scores_BB, listed_BB, valid_BB | own_BB, easy_BB)))


class _Pairs(NamedTuple):
    images: Rows
    captions: Rows
    scores: npt.NDArray[np.float32]
    flagged: npt.NDArray[np.bool_]


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


def _pairs(rows: pa.Table, direction: str, corpus: Corpus, where: str) -> list[_Pairs]:
    queries, items = (corpus.images, corpus.captions) if direction == "i2t" else (corpus.captions, corpus.images)
    query_rows = _rows(rows["query_id"].combine_chunks(), queries, where)
    found = []
    for ids, scores, flags in (
        ("candidate_ids", "teacher_scores", "false_negative"),
        ("positive_ids", "positive_scores", None),
    ):
        lists = rows[ids].combine_chunks()
        query = np.repeat(query_rows, pc.list_value_length(lists).to_numpy())
        item = _rows(lists.flatten(), items, where)
        score = rows[scores].combine_chunks().flatten().to_numpy()
        flagged = rows[flags].combine_chunks().flatten().to_numpy(zero_copy_only=False) if flags else np.zeros(len(score), bool)
        image, caption = (query, item) if direction == "i2t" else (item, query)
        found.append(_Pairs(image, caption, score, flagged.astype(np.bool_)))
    return found


def _rows(ids: Any, items: Items, where: str) -> Rows:
    rows = pc.index_in(ids, value_set=pa.array(items.ids, pa.string()))
    if rows.null_count:
        first = ids[pc.index(pc.is_null(rows), True).as_py()].as_py()
        raise StoreError(f"{where}: {first!r} is not in the corpus", expected="ids of this corpus", do="run score-teacher again")
    found: Rows = rows.to_numpy().astype(np.int64)
    return found


def _lower_cutoffs(cutoffs: npt.NDArray[np.float32], rows: pa.Table, queries: Items) -> None:
    values = pc.fill_null(rows["valid_cutoff"], float(_NEVER_VALID)).to_numpy()
    np.minimum.at(cutoffs, _rows(rows["query_id"].combine_chunks(), queries, "rankings"), values)


def _asker_matters(folders: Sequence[InputFolder]) -> bool:
    """Whether the teacher's scores depend on who asks; the folders are of one teacher, so they agree."""
    return folders[0].manifest.settings.get("roles") == "each"


def _merge(found: list[_Pairs], images: Rows, captions: Rows) -> PairTable:
    """All pairs on canonical rows, each once, in code order; the lower score and any flag count."""
    nothing = np.empty(0, dtype=np.int64)
    image = images[np.concatenate([nothing, *(pairs.images for pairs in found)])]
    caption = captions[np.concatenate([nothing, *(pairs.captions for pairs in found)])]
    scores = np.concatenate([nothing, *(pairs.scores for pairs in found)]).astype(np.float32)
    flagged = np.concatenate([nothing, *(pairs.flagged for pairs in found)]).astype(np.bool_)
    codes = image * len(captions) + caption
    order = np.lexsort((~flagged, scores, codes))
    codes, scores, flagged = codes[order], scores[order], flagged[order]
    first = np.ones(len(codes), dtype=np.bool_)
    first[1:] = codes[1:] != codes[:-1]
    any_flag = np.logical_or.reduceat(flagged, np.flatnonzero(first)) if len(codes) else flagged
    return PairTable(codes[first], scores[first], any_flag)
