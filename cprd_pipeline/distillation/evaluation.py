"""How well the student in training finds held-out captions and images, and what follows from it.

Shape suffixes: I images and C captions of the split, B of a batch, D width of the common space, C H W of a picture.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from cprd_pipeline.corpus.reader import Corpus, Rows, Split
from cprd_pipeline.distillation.pixels import PixelSource
from cprd_pipeline.distillation.precision import training_precision
from cprd_pipeline.errors import CorpusError, ModelError
from cprd_pipeline.metrics.positives import Positives
from cprd_pipeline.metrics.ranking import rank_both_directions
from cprd_pipeline.metrics.retrieval import RECALL_AT, measure_queries, rsum, summarise_queries
from cprd_pipeline.models.dual_encoder import DualEncoder

_DIRECTIONS = ("i2t", "t2i")
T = TypeVar("T")


class Evaluator:
    """Evaluates students on one split, all of its images against all of its captions.

    Args:
        corpus: Captions and ids.
        split: What is asked; images and captions without a positive are wrong answers of others only.
        batch_size: Items embedded together.

    Raises:
        CorpusError: No image of the split has a caption in it.
    """

    def __init__(self, corpus: Corpus, split: Split, batch_size: int) -> None:
        if not len(split.positives):
            raise CorpusError(
                f"split {split.name}: no image has a caption in it",
                expected="at least one pair to evaluate by",
                do="choose another eval_split, or set eval_steps to null",
            )
        self.image_rows: Rows = split.images
        self._texts = [corpus.texts[row] for row in split.captions]
        sides = (np.searchsorted(rows, split.positives[:, side]) for side, rows in enumerate((split.images, split.captions)))
        pairs_P2 = np.stack(list(sides), axis=1).astype(np.int64)
        self._positives = Positives.from_pairs(pairs_P2, len(split.images), len(split.captions))
        self._batch_size = batch_size

    def measure(self, student: DualEncoder, pixels: PixelSource) -> dict[str, float]:
        """`eval_i2t_r1` to `eval_t2i_r10` in percent, and their sum `eval_rsum`, at most 600.

        Args:
            student: In evaluation mode.
            pixels: Serves the pictures of `image_rows`.

        Raises:
            ModelError: An embedding is not finite.
        """
        batches = [self.image_rows[start : start + self._batch_size] for start in range(0, len(self.image_rows), self._batch_size)]
        images_ID = _embed(student, student.embed_images, pixels.batches(batches))
        texts = [self._texts[start : start + self._batch_size] for start in range(0, len(self._texts), self._batch_size)]
        captions_CD = _embed(student, student.embed_captions, texts)
        ranked = rank_both_directions(images_ID, captions_CD, self._positives)
        summaries = [summarise_queries(measure_queries(one)) for one in ranked]
        figures = {"eval_rsum": rsum(*summaries)}
        for direction, summary in zip(_DIRECTIONS, summaries, strict=True):
            figures |= {f"eval_{direction}_r{k}": summary[f"r{k}"] for k in RECALL_AT}
        return figures


@torch.no_grad()
def _embed(student: DualEncoder, embed: Callable[[T], Tensor], batches: Iterable[T]) -> Float32[np.ndarray, "N D"]:
    parts: list[Float[Tensor, "B D"]] = []
    with training_precision(student):
        parts.extend(embed(batch).float().cpu() for batch in batches)
    embeddings_ND = torch.cat(parts).numpy()
    if not np.isfinite(embeddings_ND).all():
        raise ModelError(
            "the student in training embeds something as NaN or infinity",
            expected="finite embeddings",
            do="lower learning_rate or set clip_norm; the last checkpoint is kept",
        )
    return embeddings_ND


def best_evaluation(values: Sequence[float]) -> int:
    """Place of the highest value, the first one among equals.

    Args:
        values: Of each evaluation so far, higher is better; at least one.
    """
    return int(np.argmax(values))


def out_of_patience(values: Sequence[float], patience: int | None) -> bool:
    """Whether the last `patience` evaluations all failed to beat the best one before them; never when it is None."""
    if patience is None or not values:
        return False
    return len(values) - 1 - best_evaluation(values) >= patience
