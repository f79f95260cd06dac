"""How good a trained teacher is on pairs it never saw: alone, and as a reranker of its own dual branch.

Shape suffixes: I images, C captions, Q queries and N items (either), E width of the dual branch's vectors, P pairs.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.metrics.positives import Positives
from cprd_pipeline.metrics.reranking import ScoredLists, rerank, reranked_ranks
from cprd_pipeline.metrics.retrieval import best_positive_ranks, rsum, summarise_ranks
from cprd_pipeline.metrics.similarities import pair_similarities, similarity_blocks
from cprd_pipeline.models.cross_encoder import CrossEncoder
from cprd_pipeline.progress import progress_bar

_CAPTIONS = 256  # encoded or scored together
_IMAGES = 16  # encoded together: BLIP keeps 42 MB of each at 384 pixels

T = TypeVar("T")


class TeacherQuality(NamedTuple):
    """What `evaluate_teacher` found.

    Args:
        dual_rsum: RSUM of the dual branch alone; percent, at most 600.
        reranked_rsum: RSUM after the cross-encoder reordered the head of each list.
        matching_accuracy: Mean of two shares, in percent: annotated pairs with a logit above 0, random others with one below; None
            where chance drew no other pair, as it must in a split of one image.
    """

    dual_rsum: float
    reranked_rsum: float
    matching_accuracy: float | None


@runtime_checkable
class DualBranch(Protocol):
    """The cheaper half of a teacher: one vector an image, one a caption, whose products say what is alike."""

    def embed_images(self, images: Sequence[Any]) -> Float[Tensor, "I E"]:
        """Vectors of what the teacher's `preprocess` made of some pictures, of length one."""

    def embed_texts(self, captions: Sequence[str]) -> Float[Tensor, "C E"]:
        """Vectors of captions, of length one."""


class _Scores(NamedTuple):
    """Teacher scores of pairs; `codes` are image * C + caption, ascending."""

    codes: Int64[np.ndarray, " P"]
    values: Float32[np.ndarray, " P"]
    captions: int

    def of(self, pairs_P2: Int64[np.ndarray, "P 2"]) -> Float32[np.ndarray, " P"]:
        """Scores of (image, caption) pairs that were scored."""
        wanted = pairs_P2[:, 0] * self.captions + pairs_P2[:, 1]
        return np.asarray(self.values[np.searchsorted(self.codes, wanted)])


def evaluate_teacher(
    teacher: CrossEncoder, dual: DualBranch, reader: ImageReader, corpus: Corpus, split: Split, depth: int, seed: int
) -> TeacherQuality:
    """Rank a split with the dual branch, rerank the first `depth` of each list with the cross-encoder.

    Args:
        teacher: The trained teacher; its score is above 0 for pairs that it takes to belong together.
        dual: Its dual branch.
        reader: Of the corpus' images, with the teacher's `preprocess`.
        corpus: The corpus.
        split: Held-out images and captions, with a positive at least; those without one in the split take no part.
        depth: Length of the reordered head.
        seed: Of the random pairs in the matching accuracy.
    """
    image_rows, images = np.unique(split.positives[:, 0], return_inverse=True)
    caption_rows, captions = np.unique(split.positives[:, 1], return_inverse=True)
    annotated_P2 = np.stack([images, captions], axis=1).astype(np.int64)
    texts = [corpus.texts[row] for row in caption_rows]
    random_P2 = _random_pairs(annotated_P2, len(texts), seed)
    images_IE = _vectors(dual.embed_images(batch) for batch in _batched(reader.prepared(image_rows), _IMAGES))
    captions_CE = _vectors(dual.embed_texts(batch) for batch in _batched(texts, _CAPTIONS))
    i2t_P2, t2i_P2 = _heads(images_IE, captions_CE, depth), _heads(captions_CE, images_IE, depth)
    pairs_P2 = np.concatenate([annotated_P2, random_P2, i2t_P2, t2i_P2[:, ::-1]])
    scores = _score(teacher, reader, image_rows, texts, pairs_P2)
    directions = (
        _ranks(images_IE, captions_CE, annotated_P2, i2t_P2, scores.of(i2t_P2), depth),
        _ranks(captions_CE, images_IE, annotated_P2[:, ::-1], t2i_P2, scores.of(t2i_P2[:, ::-1]), depth),
    )
    by_dual, reranked = (rsum(*map(summarise_ranks, ranks)) for ranks in zip(*directions, strict=True))
    return TeacherQuality(by_dual, reranked, _matching_accuracy(scores.of(annotated_P2), scores.of(random_P2)))


def _matching_accuracy(annotated_P: Float32[np.ndarray, " P"], random_K: Float32[np.ndarray, " K"]) -> float | None:
    if not len(random_K):
        return None
    return 100.0 * float((np.mean(annotated_P > 0) + np.mean(random_K < 0)) / 2)


def _vectors(batches: Iterable[Float[Tensor, "B E"]]) -> Float32[np.ndarray, "N E"]:
    return torch.cat([batch.float().cpu() for batch in batches]).numpy()


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Some at a time, in their order."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def _heads(queries_QE: Float32[np.ndarray, "Q E"], items_NE: Float32[np.ndarray, "N E"], depth: int) -> Int64[np.ndarray, "P 2"]:
    """(query, item) pairs of each query's `depth` most similar items, in no order."""
    depth = min(depth, len(items_NE))
    found = [np.argpartition(-block, depth - 1, axis=1)[:, :depth] for _, block in similarity_blocks(queries_QE, items_NE)]
    return np.stack([np.repeat(np.arange(len(queries_QE)), depth), np.concatenate(found).ravel()], axis=1).astype(np.int64)


def _random_pairs(annotated_P2: Int64[np.ndarray, "P 2"], captions: int, seed: int) -> Int64[np.ndarray, "K 2"]:
    """As many (image, caption) pairs with the images of the annotated ones, those that happen to be annotated left out."""
    drawn = np.stack([annotated_P2[:, 0], np.random.default_rng(seed).permutation(annotated_P2[:, 1])], axis=1)
    positives = Positives.from_pairs(annotated_P2, int(annotated_P2[:, 0].max()) + 1, captions)
    return np.asarray(drawn[~positives.contain(drawn[:, 0], drawn[:, 1])])


def _score(
    teacher: CrossEncoder,
    reader: ImageReader,
    image_rows: Int64[np.ndarray, " I"],
    texts: Sequence[str],
    pairs_P2: Int64[np.ndarray, "P 2"],
) -> _Scores:
    """Score each distinct pair once; images are encoded again, since what a teacher keeps of one may be tens of megabytes."""
    captions = [text for batch in _batched(texts, _CAPTIONS) for text in teacher.encode_texts(batch)]
    codes = np.unique(pairs_P2[:, 0] * len(texts) + pairs_P2[:, 1])
    values = np.empty(len(codes), dtype=np.float32)
    starts = np.searchsorted(codes, np.arange(len(image_rows) + 1) * len(texts))
    spans = pairwise(starts.tolist())
    with progress_bar("evaluating", len(codes), "pairs") as bar:
        for prepared in _batched(reader.prepared(image_rows), _IMAGES):
            for image in teacher.encode_images(prepared):
                start, end = next(spans)
                for first in range(start, end, _CAPTIONS):
                    chosen = codes[first : min(end, first + _CAPTIONS)]
                    scores = teacher.score(image, [captions[code % len(texts)] for code in chosen])
                    values[first : first + len(chosen)] = scores.numpy()
                bar.advance(end - start)
    return _Scores(codes, values, len(texts))


def _ranks(
    queries_QE: Float32[np.ndarray, "Q E"],
    items_NE: Float32[np.ndarray, "N E"],
    positive_P2: Int64[np.ndarray, "P 2"],
    head_P2: Int64[np.ndarray, "K 2"],
    scores: Float32[np.ndarray, " K"],
    depth: int,
) -> tuple[Int64[np.ndarray, " Q"], Int64[np.ndarray, " Q"]]:
    """Rank of each query's best positive by the dual branch, and after reranking."""
    positives = Positives.from_pairs(positive_P2, len(queries_QE), len(items_NE))
    by_dual = best_positive_ranks(queries_QE, items_NE, positives)
    queries, items = np.ascontiguousarray(head_P2.T)
    similarities = pair_similarities(queries_QE, items_NE, queries, items)
    lists = ScoredLists(queries, items, similarities, scores, positives.contain(queries, items))
    return by_dual, reranked_ranks(rerank(lists, depth), by_dual, depth)
