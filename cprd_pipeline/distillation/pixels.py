"""Processed pictures for the training loop: kept in memory when they fit, decoded ahead of the steps when not."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus, Rows
from cprd_pipeline.models.preprocessing import check_size, stacked
from cprd_pipeline.progress import progress_bar


class PixelSource:
    """Serves the processed pictures of batches, in the order in which they were announced.

    Args:
        reader: Decodes, checks and preprocesses pictures: it prepares float32 [C, H, W] of each.
        cache_gb: Largest memory for keeping all processed pictures; larger corpora are decoded again every epoch.
    """

    def __init__(self, reader: ImageReader, cache_gb: float) -> None:
        self._reader = reader
        self._cache_bytes = cache_gb * 1e9
        self._kept: Float[Tensor, "I C H W"] | None = None
        self._place: Rows = np.empty(0, dtype=np.int64)

    def prepare(self, corpus: Corpus, rows: Rows) -> None:
        """Decode all pictures of the run now when they fit into memory.

        Raises:
            ModelError: The image processor does not bring them to one size.
        """
        (first,) = self._reader.prepared(rows[:1])
        if first.nbytes * len(rows) > self._cache_bytes:
            return
        kept = torch.empty((len(rows), *first.shape))
        self._place = np.full(len(corpus.images), -1, dtype=np.int64)
        self._place[rows] = np.arange(len(rows))
        with progress_bar("decoding", len(rows), "images") as bar:
            for place, pixels in enumerate(self._reader.prepared(rows)):
                check_size(pixels, first)
                kept[place] = pixels
                bar.advance()
        self._kept = kept

    def batches(self, batches: Sequence[Rows]) -> Iterator[Float[Tensor, "B C H W"]]:
        """The pictures of some batches, one after the other; the reader works ahead of the caller.

        Args:
            batches: Image rows of each batch.

        Raises:
            ModelError: The image processor does not bring them to one size.
        """
        if self._kept is not None:
            for rows in batches:
                yield self._kept[torch.from_numpy(self._place[rows])]
            return
        stream = self._reader.prepared(np.concatenate(batches))
        for rows in batches:
            yield stacked([next(stream) for _ in rows])
