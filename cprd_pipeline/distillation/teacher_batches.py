"""Batches of captions of like length: half of a step's work would otherwise be padding."""

import numpy as np
import numpy.typing as npt

from cprd_pipeline.distillation.batches import BatchRows, PairSampler

_WINDOW_ORDER = 31


class LengthBatches:
    """Regroups some batches of a sampler at a time by caption length; a function of the step alone, as the sampler is.

    Args:
        sampler: Draws the pairs.
        lengths: Tokens of each caption of the corpus, int64 [C].
        window: Batches that are regrouped together; 1 leaves them as they were drawn.
    """

    def __init__(self, sampler: PairSampler, lengths: npt.NDArray[np.int64], window: int) -> None:
        self._sampler = sampler
        self._lengths = lengths
        self._window = window

    def batches(self, steps: range) -> list[BatchRows]:
        """The batches of some steps, counted from 0."""
        windows = {step // self._window for step in steps}
        plans = {window: self._regroup(window) for window in windows}
        return [plans[step // self._window][step % self._window] for step in steps]

    def _regroup(self, window: int) -> list[BatchRows]:
        drawn = [self._sampler.batch(step) for step in range(window * self._window, (window + 1) * self._window)]
        images = np.concatenate([rows.images for rows in drawn])
        captions = np.concatenate([rows.captions for rows in drawn])
        groups = np.split(np.argsort(self._lengths[captions], kind="stable"), self._window)
        order = np.random.default_rng([self._sampler.seed, _WINDOW_ORDER, window]).permutation(self._window)
        return [BatchRows.of_pairs(images[groups[place]], captions[groups[place]]) for place in order]
