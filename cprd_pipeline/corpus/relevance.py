"""The true graded relevance of every picture and caption of a split, which the demo world knows."""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.errors import StoreError


def relevance_name(split: str) -> str:
    """Name of the corpus part that holds a split's relevance."""
    return f"relevance_{split}.npy"


def read_relevance(corpus: Corpus, split: Split) -> Float32[np.ndarray, "I C"] | None:
    """Relevance of a split's captions for its images, memory-mapped.

    Args:
        corpus: The corpus.
        split: One of its splits.

    Returns:
        float32 in [0, 1], rows in the order of `split.images`, columns in that of `split.captions`; None when the corpus has none.

    Raises:
        StoreError: The file changed, or is not of the split's size.
    """
    name = relevance_name(split.name)
    if name not in corpus.folder.part_names(name):
        return None
    path = corpus.folder.part_path(name)
    relevance: npt.NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    wanted = (len(split.images), len(split.captions))
    if relevance.shape != wanted or relevance.dtype != np.float32:
        raise StoreError(
            f"{path}: {relevance.dtype} {relevance.shape}", expected=f"float32 {wanted}", do="run `cprd-pipeline prepare` again"
        )
    return relevance
