"""The batches of a run: pairs, in random order or by neighbourhood, and unpaired queries after them."""

from typing import Any

import numpy as np

from cprd_pipeline.corpus.reader import Corpus, Rows, Split
from cprd_pipeline.distillation.batches import BatchRows, PairSampler, random_order
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.neighbours import GroupChoice, choose_groups
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.unpaired import UnpairedPools
from cprd_pipeline.errors import CorpusError, SettingsError


class Sampler:
    """Which image meets which caption at which step, as a function of the seed and the step alone.

    Args:
        pairs: Draws the annotated pairs of a batch.
        pools: Unpaired queries; None draws none.
        unpaired: Their number in a batch.
        facts: What is worth telling of how batches are made, for the report; JSON types.
    """

    def __init__(self, pairs: PairSampler, pools: UnpairedPools | None, unpaired: int, facts: dict[str, Any]) -> None:
        self._pairs = pairs
        self._pools = pools
        self._unpaired = unpaired
        self.facts = facts

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches in one epoch of the pairs."""
        return self._pairs.batches_per_epoch

    @property
    def image_rows(self) -> Rows:
        """All image rows that can occur, ascending; int64."""
        rows = self._pairs.image_rows
        return rows if self._pools is None else np.union1d(rows, self._pools.image_rows)

    def batch(self, step: int) -> BatchRows:
        """The batch of a step, counted from 0: pairs, then unpaired queries with their partners."""
        rows = self._pairs.batch(step)
        if self._pools is None:
            return rows
        drawn = self._pools.draw(step, self._unpaired)
        return BatchRows(*(np.concatenate(both) for both in zip(rows, drawn, strict=True)))


def build_sampler(settings: DistillSettings, corpus: Corpus, split: Split, knowledge: TeacherKnowledge | None) -> Sampler:
    """The sampler that the settings ask for.

    Args:
        settings: Of the stage.
        corpus: Contents.
        split: What is trained on.
        knowledge: The rankings' content; None where the settings ask for nothing that takes any.

    Raises:
        SettingsError: A share of unpaired queries that is no query, or leaves no pair.
        CorpusError: Too few pairs or unpaired items for a batch, or no split of the name.
        StoreError: The rankings know no partner of any unpaired item.
    """
    unpaired = _unpaired_of_a_batch(settings)
    size = settings.batch_size - unpaired
    facts: dict[str, Any] = {"pairs_of_a_batch": size}
    arrange = random_order
    if settings.neighbours.known_share > 0:
        assert knowledge is not None
        chosen = choose_groups(knowledge, split, size, settings.neighbours, settings.seed)
        arrange = chosen.arrange
        facts["neighbours"] = _neighbour_facts(chosen)
    pairs = PairSampler(split, size, settings.seed, settings.captions_per_image, arrange)
    facts["batches_per_epoch"] = pairs.batches_per_epoch
    pools = None
    if unpaired:
        assert knowledge is not None
        where = split if settings.unpaired.split is None else corpus.split(settings.unpaired.split)
        pools = UnpairedPools(corpus, where, knowledge, settings.unpaired, settings.seed)
        facts["unpaired"] = {"queries_of_a_batch": unpaired, **pools.counts}
        if len(pools) < unpaired:
            raise CorpusError(
                f"split {where.name} has {len(pools)} unpaired items with a possible partner, a batch takes {unpaired}",
                expected="as many as a batch takes",
                do="lower unpaired.share, or mine and score more of them",
            )
    return Sampler(pairs, pools, unpaired, facts)


def _unpaired_of_a_batch(settings: DistillSettings) -> int:
    share, size = settings.unpaired.share, settings.batch_size
    if not share:
        return 0
    count = round(share * size)
    if not 0 < count < size:
        raise SettingsError(
            f"unpaired.share {share:g} is {count} of the {size} queries of a batch",
            expected=f"at least one and at most {size - 1}",
            do="change unpaired.share or batch_size; 0 leaves unpaired items out",
        )
    return count


def _neighbour_facts(chosen: GroupChoice) -> dict[str, Any]:
    facts = chosen._asdict()
    del facts["arrange"]
    return facts
