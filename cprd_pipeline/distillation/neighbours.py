"""Epochs made of groups of neighbours, so that a set share of the pairs that meet in a batch is known to the teacher."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Rows, Split
from cprd_pipeline.distillation.batches import PairSampler
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.loop_settings import Neighbours
from cprd_pipeline.distillation.neighbour_graph import neighbour_graph

_MEASURED_BATCHES = 16


class NeighbourOrder:
    """Orders the images of a pass: each batch is made of groups of neighbours, then images drawn at random.

    A group begins with a random image, and goes on with its unused neighbours, with theirs, and so on; where all are used, another
    random image joins. What is left late in a pass knows less of each other: batches are shuffled, so that an epoch has no trend.

    Args:
        graph: Places of each image's neighbours, the best first, -1 where there are fewer; int32 [N, K].
        group_size: Images of a group; the last one of a batch may be smaller.
        batch_size: Images of a batch.
        random_share: Share of each batch that is drawn at random.
    """

    def __init__(self, graph: npt.NDArray[np.int32], group_size: int, batch_size: int, random_share: float) -> None:
        self._graph = graph
        self._batch_size = batch_size
        self._drawn = round(random_share * batch_size)
        groups, rest = divmod(batch_size - self._drawn, group_size)
        self._sizes = [group_size] * groups + [rest] * (rest > 0)

    def __call__(self, places: Rows, random: np.random.Generator) -> Rows:
        """The order of one pass.

        Args:
            places: The images that take part, int64 [M].
            random: Draws the order.

        Returns:
            The same places: whole batches, each with its random images last; then those that fill none.
        """
        order = places[random.permutation(len(places))]
        batches = len(order) // self._batch_size
        drawn, others = np.split(order, [batches * self._drawn])
        free = np.zeros(len(self._graph) + 1, dtype=np.bool_)  # the last one stands for no neighbour
        free[others] = True
        seeds, grouped = iter(others.tolist()), []
        for _ in range(batches):
            for size in self._sizes:
                grouped += self._grow(size, seeds, free)
        rows = (
            np.array(grouped, dtype=np.int64).reshape(batches, self._batch_size - self._drawn),
            drawn.reshape(batches, self._drawn),
        )
        together = np.concatenate(rows, axis=1)[random.permutation(batches)]
        return np.concatenate([together.ravel(), others[free[others]]])

    def _grow(self, size: int, seeds: Iterator[int], free: npt.NDArray[np.bool_]) -> list[int]:
        group: list[int] = []
        asked = 0
        while len(group) < size:
            if asked < len(group):
                near = self._graph[group[asked]]
                near = near[free[near]][: size - len(group)]
                free[near] = False
                group += near.tolist()
                asked += 1
            else:
                seed = next(place for place in seeds if free[place])
                free[seed] = False
                group.append(seed)
        return group


class GroupChoice(NamedTuple):
    """Groups as large as a known share takes.

    Args:
        arrange: Orders the images of a pass.
        group_size: A power of two.
        known_share: Of a batch's pairs, measured; the diagonal counts too.
        random_known_share: The same of batches drawn at random.
        reached: Whether that is at least what was asked for; if not, no group size gives more.
    """

    arrange: NeighbourOrder
    group_size: int
    known_share: float
    random_known_share: float
    reached: bool


def choose_groups(knowledge: TeacherKnowledge, split: Split, batch_size: int, settings: Neighbours, seed: int) -> GroupChoice:
    """The smallest groups whose batches reach the known share, or the best ones where none does.

    Measured on some batches of an epoch of each size, every image with a random one of its captions.

    Args:
        knowledge: The rankings' content.
        split: What is trained on.
        batch_size: Pairs in a batch.
        settings: What is asked for.
        seed: Of the batches.
    """
    graph = neighbour_graph(knowledge, split)
    choices: list[GroupChoice] = []
    for size in (1 << power for power in range(batch_size.bit_length())):
        order = NeighbourOrder(graph, size, batch_size, settings.random_share)
        share = _known_share(knowledge, PairSampler(split, batch_size, seed, arrange=order))
        at_random = choices[0].known_share if choices else share
        choices.append(GroupChoice(order, size, share, at_random, share >= settings.known_share))
        if choices[-1].reached:
            return choices[-1]
    return max(choices, key=lambda choice: choice.known_share)


def _known_share(knowledge: TeacherKnowledge, sampler: PairSampler) -> float:
    """Mean over both directions and some batches, evenly spread over the first epoch, or over several short ones."""
    steps = np.linspace(0, max(sampler.batches_per_epoch, _MEASURED_BATCHES) - 1, _MEASURED_BATCHES).astype(np.int64)
    told = (knowledge.among(sampler.batch(int(step))) for step in steps)
    return float(np.mean([(~np.isnan([one.i2t.scores_QN, one.t2i.scores_QN])).mean() for one in told]))
