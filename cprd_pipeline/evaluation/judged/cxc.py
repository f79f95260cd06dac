"""Crisscrossed Captions (CxC): how well image and caption fit, rated from 0 to 5 by several people (SITS).

Source: Parekh et al. 2021, "Crisscrossed Captions: Extended Intramodal and Intermodal Semantic Similarity Judgments for
MS-COCO", arXiv:2004.15020; the files `sits_val.csv` and `sits_test.csv`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.matching import UNKNOWN_LIMIT, caption_lookup, check_known, image_lookup
from cprd_pipeline.evaluation.judged.reading import Row, number_between, read_table
from cprd_pipeline.evaluation.judged.result import JudgedResult
from cprd_pipeline.evaluation.judged.retrieval import Pool, answer_judged, mean_values
from cprd_pipeline.evaluation.students import EmbeddedStudent
from cprd_pipeline.metrics.judged import sampled_spearman
from cprd_pipeline.metrics.similarities import pair_similarities

POSITIVE_FROM = 3.0
"""Lowest rating of a positive in SITS (section 3 of the paper)."""

SAMPLES = 1000

_COLUMNS = ("caption", "image", "agg_score", "sampling_method")
_CAPTION = re.compile(r"COCO_\w+:sentid:\d+", re.ASCII)
_IMAGE = re.compile(r"COCO_\w+_\d+\.jpg", re.ASCII)
_FIGURES = ("r1", "r5", "r10")


@dataclass(frozen=True)
class CxcRatings:
    """Rated pairs of a caption and an image.

    Args:
        path: Their file.
        captions: Caption of each pair as in the file, `COCO_val2014:sentid:732091`.
        images: Image of each pair as in the file, `COCO_val2014_000000365325.jpg`.
        ratings: Mean of the raters, in [0, 5]; float64 [P].
    """

    path: Path
    captions: tuple[str, ...]
    images: tuple[str, ...]
    ratings: Float64[np.ndarray, " P"]


def read_cxc(path: Path) -> CxcRatings:
    """Read `sits_val.csv` or `sits_test.csv`.

    Raises:
        CorpusError: No such file, other columns (as those of STS and SIS), or a row that is damaged or occurs twice.
    """
    rows = read_table(path, "CxC's SITS ratings", ",", _COLUMNS, header=True, quoted=True)
    ratings = [number_between(row.cells[2], 0.0, 5.0, f"{row.where}, agg_score") for row in rows]
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        caption, image = _cell(row, 0, _CAPTION), _cell(row, 1, _IMAGE)
        first = seen.setdefault((caption, image), row.where)
        if first != row.where:
            raise CorpusError(f"{row.where}: the pair was rated at {first} already", expected="one row a pair")
    captions, images = zip(*seen, strict=True)
    return CxcRatings(path, captions, images, np.array(ratings))


def evaluate_cxc(
    judged: CxcRatings,
    corpus: Corpus,
    split: Split,
    student: EmbeddedStudent,
    *,
    unknown_limit: float = UNKNOWN_LIMIT,
    seed: int = 0,
) -> JudgedResult:
    """R@K with the rated positives, and the correlation of similarities with ratings.

    R@K: a pair rated 3.0 or higher is a positive, annotated or not, and an annotated pair rated lower is none (the test
    file gives exactly the pairs of eccv_caption's `cxc_*.json`). Queries without a positive are not asked. Images and
    captions of the file are the candidates: 5,000 and 25,000 in the published ones, while Karpathy's split has some captions more.

    SITS: 1,000 times half of the images are drawn, for each one of its rated captions, and Spearman's correlation of
    similarity and rating over these pairs; the mean is the figure, the standard deviation its spread. That images are the
    queries is our reading: the published spreads (1.2 to 1.5 points) fit 5,000 queries; those of 25,000 captions would be
    half as wide.

    Args:
        judged: What `read_cxc` gave.
        corpus: A corpus with COCO's ids.
        split: The split that holds COCO's (Karpathy's) val or test images.
        student: Its embeddings.
        unknown_limit: Share of the set's ids that may be unknown.
        seed: Of the drawing.

    Returns:
        Figures `i2t_r1`, `i2t_r5`, `i2t_r10`, the same for `t2i`, in percent; `sits_spearman` and
        `sits_spearman_deviation`, correlations in [-1, 1]. Counts: `i2t_queries`, `t2i_queries`, `images`, `captions` that
        could be found, `pairs` that were correlated, `unknown_images`, `unknown_captions`.

    Raises:
        CorpusError: Too many ids are unknown, no query is left, or fewer than four images.
    """
    image_ids, caption_ids = image_lookup(corpus, split), caption_lookup(corpus, split)
    images, captions = image_ids.places(judged.images), caption_ids.places(judged.captions)
    unknown = check_known(judged.path, split, [image_ids, caption_ids], unknown_limit)
    known = (images >= 0) & (captions >= 0)
    pool = Pool(np.unique(images[images >= 0]), np.unique(captions[captions >= 0]))
    positive = np.flatnonzero(known & (judged.ratings >= POSITIVE_FROM))
    i2t_pairs = np.stack([images[positive], captions[positive]], axis=1)
    queries = {
        "i2t": answer_judged(student, corpus, split, "i2t", i2t_pairs, pool),
        "t2i": answer_judged(student, corpus, split, "t2i", i2t_pairs[:, ::-1], pool),
    }
    figures = mean_values(queries["i2t"], _FIGURES, "i2t") | mean_values(queries["t2i"], _FIGURES, "t2i")
    figures |= _correlation(judged, split, student, images[known], captions[known], judged.ratings[known], seed)
    counts = {f"{direction}_queries": len(found.ids) for direction, found in queries.items()}
    counts |= {"images": len(pool.images), "captions": len(pool.captions), "pairs": int(known.sum())}
    counts |= {"unknown_images": len(image_ids.unknown), "unknown_captions": len(caption_ids.unknown)}
    return JudgedResult(figures, counts, unknown, queries)


def _correlation(
    judged: CxcRatings,
    split: Split,
    student: EmbeddedStudent,
    images: Int64[np.ndarray, " N"],
    captions: Int64[np.ndarray, " N"],
    ratings: Float64[np.ndarray, " N"],
    seed: int,
) -> dict[str, float]:
    queries = np.unique(images, return_inverse=True)[1].astype(np.int64)
    if queries.max() < 3:
        raise CorpusError(
            f"{judged.path}: {queries.max() + 1} of its images are in split {split.name!r}", expected="at least four to correlate"
        )
    similarities = pair_similarities(student.images, student.captions, images, captions).astype(np.float64)
    sampled = sampled_spearman(similarities, ratings, queries, SAMPLES, np.random.default_rng(seed))
    return {"sits_spearman": float(sampled.mean()), "sits_spearman_deviation": float(sampled.std(ddof=1))}


def _cell(row: Row, column: int, pattern: re.Pattern[str]) -> str:
    cell = row.cells[column]
    if not pattern.fullmatch(cell):
        raise CorpusError(
            f"{row.where}, {_COLUMNS[column]}: {cell[:60]!r}",
            expected="COCO_val2014:sentid:<number> for a caption, COCO_val2014_<number>.jpg for an image",
        )
    return cell
