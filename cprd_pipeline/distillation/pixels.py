"""Processed pictures for the training loop: kept in memory when they fit, decoded ahead of the steps when not."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus, Rows
from cprd_pipeline.progress import progress_bar

_PROCESS_BATCH = 64


Processor = Callable[[Sequence[Image.Image]], Tensor]
"""Turns RGB pictures into float32 [B, C, H, W] on the CPU."""


class PixelSource:
    """Serves the processed pictures of batches, in the order in which they were announced.

    Args:
        reader: Decodes and checks pictures.
        process: The student's image processor.
        cache_gb: Largest memory for keeping all processed pictures; larger corpora are decoded again every epoch.
    """

    def __init__(self, reader: ImageReader, process: Processor, cache_gb: float) -> None:
        self._reader = reader
        self._process = process
        self._cache_bytes = cache_gb * 1e9
        self._kept: Float[Tensor, "I C H W"] | None = None
        self._place: Rows = np.empty(0, dtype=np.int64)

    def prepare(self, corpus: Corpus, rows: Rows) -> None:
        """Decode all pictures of the run now when they fit into memory."""
        first = self._process([self._reader.read(int(rows[0]))])
        if first.nbytes * len(rows) > self._cache_bytes:
            return
        kept = torch.empty((len(rows), *first.shape[1:]))
        self._place = np.full(len(corpus.images), -1, dtype=np.int64)
        self._place[rows] = np.arange(len(rows))
        with progress_bar("decoding", len(rows), "images") as bar:
            for start, pictures in _grouped(self._reader.stream(rows)):
                kept[start : start + len(pictures)] = self._process(pictures)
                bar.advance(len(pictures))
        self._kept = kept

    def batches(self, batches: Sequence[Rows]) -> Iterator[Float[Tensor, "B C H W"]]:
        """The pictures of some batches, one after the other; the reader works ahead of the caller.

        Args:
            batches: Image rows of each batch.
        """
        if self._kept is not None:
            for rows in batches:
                yield self._kept[torch.from_numpy(self._place[rows])]
            return
        stream = self._reader.stream(np.concatenate(batches))
        for rows in batches:
            yield self._process([next(stream)[1] for _ in rows])


def _grouped(stream: Iterator[tuple[int, Image.Image]]) -> Iterator[tuple[int, list[Image.Image]]]:
    """Position of the first picture of each group, and the group."""
    start, group = 0, []
    for _, picture in stream:
        group.append(picture)
        if len(group) == _PROCESS_BATCH:
            yield start, group
            start, group = start + len(group), []
    if group:
        yield start, group
