"""How good a scene teacher is on pairs it never saw: alone, and as a reranker of its own dual branch.

Shape suffixes: I images, C captions, Q queries and N items (either), E width of the dual branch's vectors, P pairs.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.metrics.positives import Positives
from cprd_pipeline.metrics.reranking import ScoredLists, rerank, reranked_ranks
from cprd_pipeline.metrics.retrieval import best_positive_ranks, rsum, summarise_ranks
from cprd_pipeline.metrics.similarities import pair_similarities, similarity_blocks
from cprd_pipeline.models.scene_teacher import EncodedCaption, SceneTeacher
from cprd_pipeline.progress import progress_bar

_BATCH = 256


class TeacherQuality(NamedTuple):
    """What `evaluate_teacher` found.

    Args:
        dual_rsum: RSUM of the dual branch alone; percent, at most 600.
        reranked_rsum: RSUM after the cross-encoder reordered the head of each list.
        matching_accuracy: Mean of two shares, in percent: annotated pairs with a logit above 0, random others with one below.
    """

    dual_rsum: float
    reranked_rsum: float
    matching_accuracy: float


class _Items(NamedTuple):
    """A split as the teacher's towers leave it."""

    images: list[torch.Tensor]
    captions: list[EncodedCaption]
    image_vectors: Float32[np.ndarray, "I E"]
    caption_vectors: Float32[np.ndarray, "C E"]


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
    teacher: SceneTeacher, reader: ImageReader, corpus: Corpus, split: Split, depth: int, seed: int
) -> TeacherQuality:
    """Rank a split with the dual branch, rerank the first `depth` of each list with the cross-encoder.

    Args:
        teacher: The trained teacher.
        reader: Of the corpus' images.
        corpus: The corpus.
        split: Held-out images and captions; those without a positive in the split take no part.
        depth: Length of the reordered head.
        seed: Of the random pairs in the matching accuracy.
    """
    image_rows, images = np.unique(split.positives[:, 0], return_inverse=True)
    caption_rows, captions = np.unique(split.positives[:, 1], return_inverse=True)
    annotated_P2 = np.stack([images, captions], axis=1).astype(np.int64)
    items = _encode(teacher, reader, image_rows, [corpus.texts[row] for row in caption_rows])
    random_P2 = _random_pairs(annotated_P2, len(caption_rows), seed)
    i2t_P2 = _heads(items.image_vectors, items.caption_vectors, depth)
    t2i_P2 = _heads(items.caption_vectors, items.image_vectors, depth)
    scores = _score(teacher, items, np.concatenate([annotated_P2, random_P2, i2t_P2, t2i_P2[:, ::-1]]))
    directions = (
        _ranks(items.image_vectors, items.caption_vectors, annotated_P2, i2t_P2, scores.of(i2t_P2), depth),
        _ranks(items.caption_vectors, items.image_vectors, annotated_P2[:, ::-1], t2i_P2, scores.of(t2i_P2[:, ::-1]), depth),
    )
    accuracy = (np.mean(scores.of(annotated_P2) > 0) + np.mean(scores.of(random_P2) < 0)) / 2
    dual, reranked = (rsum(*map(summarise_ranks, ranks)) for ranks in zip(*directions, strict=True))
    return TeacherQuality(dual, reranked, 100.0 * float(accuracy))


@torch.inference_mode()
def _encode(teacher: SceneTeacher, reader: ImageReader, image_rows: Int64[np.ndarray, " I"], texts: list[str]) -> _Items:
    pictures = [picture for _, picture in reader.stream(image_rows)]
    images = [
        state for start in range(0, len(pictures), _BATCH) for state in teacher.encode_images(pictures[start : start + _BATCH])
    ]
    captions = [text for start in range(0, len(texts), _BATCH) for text in teacher.encode_texts(texts[start : start + _BATCH])]
    first_words = torch.stack([caption.states[:1] for caption in captions])
    return _Items(
        images,
        captions,
        teacher.model.embed_images(torch.stack(images)).float().cpu().numpy(),
        teacher.model.embed_texts(first_words).float().cpu().numpy(),
    )


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


def _score(teacher: SceneTeacher, items: _Items, pairs_P2: Int64[np.ndarray, "P 2"]) -> _Scores:
    """Score each distinct pair once, one image at a time."""
    count = len(items.captions)
    codes = np.unique(pairs_P2[:, 0] * count + pairs_P2[:, 1])
    values = np.empty(len(codes), dtype=np.float32)
    starts = np.searchsorted(codes, np.arange(len(items.images) + 1) * count)
    with progress_bar("evaluating", len(codes), "pairs") as bar:
        for image, (start, end) in enumerate(pairwise(starts)):
            for first in range(start, end, _BATCH):
                chosen = codes[first : min(end, first + _BATCH)]
                texts = [items.captions[code % count] for code in chosen]
                values[first : first + len(chosen)] = teacher.score(items.images[image], texts).numpy()
            bar.advance(int(end - start))
    return _Scores(codes, values, count)


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
