"""The control: the same lists and scores, with the teacher's order destroyed.

Shape suffixes: Q queries, N items encoded with the batch.
"""

import dataclasses

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.distillation.losses.lists import TeacherLists, own_items

_LAST = np.iinfo(np.int64).max


def shuffle_teacher(lists: TeacherLists, keys_QN: Int[Tensor, "Q N"]) -> TeacherLists:
    """The lists with the teacher's scores, and what they make valid, dealt anew among each query's candidates.

    The query's own positive keeps its score: the control asks what the order of the candidates is worth.

    Args:
        lists: The teacher's knowledge; on the keys' device.
        keys_QN: From `shuffle_keys`; the candidate with the r-th smallest key passes its score to the r-th candidate.
    """
    candidates_QN = lists.listed_QN & ~own_items(lists)
    # Both orders end with all that is no candidate, by column, so that nothing else moves.
    to_QN = (~candidates_QN).int().argsort(dim=1, stable=True)
    from_QN = keys_QN.masked_fill(~candidates_QN, _LAST).argsort(dim=1, stable=True)
    teacher_QN = lists.teacher_QN.scatter(1, to_QN, lists.teacher_QN.gather(1, from_QN))
    valid_QN = lists.valid_QN.scatter(1, to_QN, lists.valid_QN.gather(1, from_QN))
    return dataclasses.replace(lists, teacher_QN=teacher_QN, valid_QN=valid_QN)


def shuffle_keys(seed: int, step: int, direction: int, queries: Rows, items_QN: Rows) -> Int[Tensor, "Q N"]:
    """Random numbers for the pairs of a batch, on the CPU; each depends on the arguments for its own pair alone.

    So nothing is remembered between steps, and a query is dealt the same order on one process or many.

    Args:
        seed: Of the run.
        step: Steps done.
        direction: A number for each direction.
        queries: Corpus rows of the queries, int64 [Q].
        items_QN: Corpus rows of the items of each query, int64.
    """
    key = np.zeros((1, 1), dtype=np.uint64)
    for part in (np.array(seed), np.array(step), np.array(direction), queries[:, None], items_QN):
        key = _mix(key ^ part.astype(np.uint64))
    # The upper 62 bits: never negative, and never the number that marks what does not take part.
    return torch.from_numpy((key >> np.uint64(2)).astype(np.int64))


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """One step of SplitMix64 (Steele et al. 2014, "Fast Splittable Pseudorandom Number Generators", OOPSLA)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
