"""Which images the teacher knows of each other: it scored one with a caption of the other.

Shape suffixes: N images of the split that have captions, in the order of `PairSampler.image_rows`; P pairs, E edges.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Rows, Split
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.pair_table import PairTable, ScoredLists, row_blocks
from cprd_pipeline.distillation.selection import first_of_each, places
from cprd_pipeline.distillation.turned_table import TurnedTable

MOST_NEIGHBOURS = 64
"""Kept of each image, the highest scores; with it, memory is bounded by the number of images."""

_MOST_OWNERS = 64  # images that one text stands for: "a dog" of thousands of pictures says nothing about their likeness

NONE = -1


class _Edges(NamedTuple):
    """From image to image, counted from 0: int64 [E], int64 [E], float32 [E]."""

    owner: Rows
    other: Rows
    scores: npt.NDArray[np.float32]


def neighbour_graph(knowledge: TeacherKnowledge, split: Split) -> npt.NDArray[np.int32]:
    """Neighbours of every image: j is one of i when the teacher scored (i, a caption of j) or (a caption of i, j).

    Images that are neighbours by both come first, then higher scores; of several scored pairs the highest score counts. Pairs that
    are annotated make no neighbours.

    Args:
        knowledge: The rankings' content.
        split: What is trained on.

    Returns:
        Places of neighbours, the best first, `NONE` where there are fewer; int32 [N, `MOST_NEIGHBOURS`].
    """
    forth = _forward(knowledge, split)
    back = TurnedTable.of_table(forth)
    graph = np.full((forth.width, MOST_NEIGHBOURS), NONE, dtype=np.int32)
    for block in row_blocks(forth.starts + back.starts):
        lists = [table.of(block) for table in (forth, back)]
        both = [_Edges(one.owner, one.items.astype(np.int64), one.scores) for one in lists]
        edges, times = _join(_concatenate(both), forth.width)
        best = np.lexsort((-edges.scores, times == 1, edges.owner))
        best = best[first_of_each(edges.owner[best], MOST_NEIGHBOURS)]
        owner = edges.owner[best]
        graph[block[owner], places(owner)] = edges.other[best]
    return graph


def _forward(knowledge: TeacherKnowledge, split: Split) -> PairTable:
    """From each image to the owners of captions that were scored with it, the best of them."""
    image_rows = np.unique(split.positives[:, 0])
    told: list[ScoredLists] = [knowledge.i2t]
    if knowledge.told_captions is not None:
        told.append(TurnedTable.of_table(knowledge.told_captions))
    owners = _CaptionOwners(knowledge, split, image_rows)
    canonical = knowledge.canonical_image[image_rows]
    lengths = sum((np.diff(table.starts)[canonical] for table in told), np.zeros(len(canonical), dtype=np.int64))
    counts, others, scores = [], [], []
    for block in row_blocks(np.append(0, np.cumsum(lengths))):
        edges = _best_edges(block, canonical, told, owners)
        counts.append(np.bincount(edges.owner, minlength=len(block)))
        others.append(edges.other.astype(np.int32))
        scores.append(edges.scores)
    starts = np.append(0, np.cumsum(np.concatenate(counts)))
    return PairTable(starts, np.concatenate(others), np.concatenate(scores), np.zeros(starts[-1], dtype=np.bool_), len(image_rows))


def _best_edges(block: Rows, canonical: Rows, told: list[ScoredLists], owners: "_CaptionOwners") -> _Edges:
    """Edges of some images, those of each by score; the owner is counted from the block's first image."""
    lists = [table.of(canonical[block]) for table in told]
    parts = [owners.edges(block, one.owner, one.items, one.scores) for one in lists]
    edges, _ = _join(_concatenate(parts), len(canonical))
    # Others ascend within an owner by now, and the sort is stable.
    best = np.lexsort((-edges.scores, edges.owner))
    best = best[first_of_each(edges.owner[best], MOST_NEIGHBOURS)]
    return _Edges(edges.owner[best], edges.other[best], edges.scores[best])


def _concatenate(parts: list[_Edges]) -> _Edges:
    owner, other, scores = zip(*parts, strict=True)
    return _Edges(np.concatenate(owner), np.concatenate(other), np.concatenate(scores))


def _join(edges: _Edges, count: int) -> tuple[_Edges, Rows]:
    """Each edge once, by owner, then other, with its highest score; and how often it occurred, int64 [E]."""
    if not len(edges.owner):
        return edges, np.empty(0, dtype=np.int64)
    code = edges.owner * count + edges.other
    order = np.argsort(code)
    code = code[order]
    first = np.flatnonzero(np.diff(code, prepend=-1))
    joined = _Edges(code[first] // count, code[first] % count, np.maximum.reduceat(edges.scores[order], first))
    return joined, np.diff(first, append=len(code))


class _CaptionOwners:
    """The images of each caption's content, by canonical caption row."""

    def __init__(self, knowledge: TeacherKnowledge, split: Split, image_rows: Rows) -> None:
        count = len(image_rows)
        captions = knowledge.canonical_caption[split.positives[:, 1]]
        code = np.unique(captions * count + np.searchsorted(image_rows, split.positives[:, 0]))
        code = code[first_of_each(code // count, _MOST_OWNERS)]
        self._owners = code % count
        lengths = np.bincount(code // count, minlength=len(knowledge.canonical_caption))
        self._starts = np.append(0, np.cumsum(lengths))

    def edges(self, block: Rows, owner: Rows, captions: npt.NDArray[np.int32], scores: npt.NDArray[np.float32]) -> _Edges:
        """From images to the owners of captions, but for captions that are their own too; owner as it is given."""
        begins = self._starts[captions]
        lengths = self._starts[captions + 1] - begins
        entry = np.repeat(np.arange(len(captions)), lengths)
        other = self._owners[np.arange(len(entry)) + np.repeat(begins - (np.cumsum(lengths) - lengths), lengths)]
        annotated = np.zeros(len(captions), dtype=np.bool_)
        annotated[entry[block[owner[entry]] == other]] = True
        kept = np.flatnonzero(~annotated[entry])
        return _Edges(owner[entry[kept]], other[kept], scores[entry[kept]])
