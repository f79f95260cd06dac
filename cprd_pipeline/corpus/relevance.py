"""True graded relevance of a generated world, kept for evaluation."""

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Corpus, Split


def relevance_name(split: str) -> str:
    """Name of the part of a corpus folder."""
    return f"relevance_{split}.npy"


def read_relevance(corpus: Corpus, split: Split) -> npt.NDArray[np.float32] | None:
    """How true each caption is of each picture of a split; None where nobody knows.

    Returns:
        Memory-mapped float32 [images of the split, captions of the split] in [0, 1], in the order of the corpus' rows.
    """
    name = relevance_name(split.name)
    if name not in corpus.folder.part_names(name):
        return None
    relevance: npt.NDArray[np.float32] = np.load(corpus.folder.part_path(name), mmap_mode="r", allow_pickle=False)
    return relevance
