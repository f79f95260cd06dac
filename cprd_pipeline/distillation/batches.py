"""Which image meets which caption at which step, as a function of the seed and the step alone.

Nothing is remembered between steps, so that a resumed run draws what an uninterrupted one would have drawn.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Rows, Split
from cprd_pipeline.errors import CorpusError

_EPOCH_ORDER, _CAPTION_CHOICE = 1, 2


class BatchRows(NamedTuple):
    """Corpus rows of one batch: image i and caption i are a positive pair. Both int64 [B]."""

    images: Rows
    captions: Rows


class PairSampler:
    """Every image once an epoch in random order, each time with one of its captions.

    Args:
        split: The split to train on.
        batch_size: Pairs in a batch; the rest of an epoch that fills no batch is left out.
        seed: Of the order and the choices.

    Raises:
        CorpusError: Fewer images with a caption than a batch needs.
    """

    def __init__(self, split: Split, batch_size: int, seed: int) -> None:
        ordered = split.positives[np.lexsort((split.positives[:, 1], split.positives[:, 0]))]
        self.image_rows, self._starts, self._counts = np.unique(ordered[:, 0], return_index=True, return_counts=True)
        self._captions = ordered[:, 1]
        self.batch_size = batch_size
        self.seed = seed
        if len(self.image_rows) < batch_size:
            raise CorpusError(
                f"split {split.name} has {len(self.image_rows)} images with a caption, batch_size is {batch_size}",
                expected="at least one whole batch",
                do="lower batch_size or choose another split",
            )

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches in one pass over the images."""
        return len(self.image_rows) // self.batch_size

    def batch(self, step: int) -> BatchRows:
        """The batch of a step, counted from 0."""
        epoch, position = divmod(step, self.batches_per_epoch)
        order = self._rng(_EPOCH_ORDER, epoch).permutation(len(self.image_rows))
        chosen = order[position * self.batch_size : (position + 1) * self.batch_size]
        pick = self._rng(_CAPTION_CHOICE, step).random(self.batch_size)
        captions = self._captions[self._starts[chosen] + (pick * self._counts[chosen]).astype(np.int64)]
        return BatchRows(self.image_rows[chosen].astype(np.int64), captions.astype(np.int64))

    def _rng(self, purpose: int, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, index])


class PositivePairs:
    """Looks up which pairs of a batch are annotated.

    Args:
        split: The split; its positives are closed over equal digests.
        captions: Number of captions of the corpus.
    """

    def __init__(self, split: Split, captions: int) -> None:
        self._captions = captions
        self._codes = np.unique(split.positives[:, 0] * captions + split.positives[:, 1])

    def among(self, rows: BatchRows) -> npt.NDArray[np.bool_]:
        """Whether image i and caption j are a positive pair; bool [B, B]."""
        codes = rows.images[:, None] * self._captions + rows.captions[None, :]
        place = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        found: npt.NDArray[np.bool_] = self._codes[place] == codes
        return found
