"""Hard negatives: an image, a caption that is right, and one that differs little and is wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.evaluation.judged.matching import UNKNOWN_LIMIT, check_known, image_lookup
from cprd_pipeline.evaluation.judged.result import JudgedResult, PerQuery
from cprd_pipeline.evaluation.students import EmbeddedStudent
from cprd_pipeline.metrics.similarities import pair_similarities

EmbedTexts = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Unit vectors of texts by the student that is evaluated; float32 [N, D]."""


@dataclass(frozen=True)
class HardPair:
    """One question.

    Args:
        name: Unique within its kind.
        kind: What was changed.
        image: File name of the image.
        caption: The right caption.
        foil: The wrong one.
    """

    name: str
    kind: str
    image: str
    caption: str
    foil: str


@dataclass(frozen=True)
class HardNegatives:
    """A set of hard negatives.

    Args:
        path: Its file or folder.
        pairs: In the order of the files, at least one.
        left_out: Entries that the set's own rules leave out.
    """

    path: Path
    pairs: tuple[HardPair, ...]
    left_out: int = 0


def evaluate_hard_negatives(
    judged: HardNegatives,
    corpus: Corpus,
    split: Split,
    student: EmbeddedStudent,
    embed_texts: EmbedTexts,
    *,
    unknown_limit: float = UNKNOWN_LIMIT,
) -> JudgedResult:
    """How often the right caption is more similar to the image than the wrong one; guessing gives 50.

    A tie counts against the model, so one that gives everything the same vector gets 0. The captions need not be in the
    corpus, the images must be.

    Args:
        judged: What one of the readers gave.
        corpus: A corpus with the set's images.
        split: The split that holds them.
        student: Its embeddings.
        embed_texts: The same student's embedding of free texts.
        unknown_limit: Share of the set's images that may be unknown.

    Returns:
        Figures: the accuracy of each kind, in percent, under its name, and `mean`, the mean over the kinds. Counts: `pairs`
        that were used, `same_texts` of them whose two captions are equal (always ties), `pairs_unknown` without an image,
        `unknown_images`, `left_out` by the set's own rules. Per pair: `pairs`, ids `<kind>/<name>`, value `correct`, 0 or 100.

    Raises:
        CorpusError: Too many images are unknown.
        ModelError: The student embeds a text as something else than a vector of length one.
    """
    lookup = image_lookup(corpus, split)
    places = lookup.places(pair.image for pair in judged.pairs)
    unknown = check_known(judged.path, split, [lookup], unknown_limit)
    used = np.flatnonzero(places >= 0)
    pairs = [judged.pairs[row] for row in used]
    rows = {text: row for row, text in enumerate(dict.fromkeys(text for pair in pairs for text in (pair.caption, pair.foil)))}
    vectors = embed_texts(list(rows))

    def similarities(texts: list[str]) -> npt.NDArray[np.float32]:
        return pair_similarities(student.images, vectors, places[used], np.array([rows[text] for text in texts], dtype=np.int64))

    correct = similarities([pair.caption for pair in pairs]) > similarities([pair.foil for pair in pairs])
    values = 100.0 * correct.astype(np.float64)
    counts = {
        "pairs": len(pairs),
        "same_texts": sum(pair.caption == pair.foil for pair in pairs),
        "pairs_unknown": len(judged.pairs) - len(pairs),
        "unknown_images": len(lookup.unknown),
        "left_out": judged.left_out,
    }
    queries = PerQuery([f"{pair.kind}/{pair.name}" for pair in pairs], {"correct": values})
    return JudgedResult(_accuracies(pairs, values), counts, unknown, {"pairs": queries})


def _accuracies(pairs: list[HardPair], values: npt.NDArray[np.float64]) -> dict[str, float]:
    """Mean of each kind in the order of the pairs, then the mean of these."""
    kinds = list(dict.fromkeys(pair.kind for pair in pairs))
    number_of = {kind: number for number, kind in enumerate(kinds)}
    kind_of_pair = np.array([number_of[pair.kind] for pair in pairs], dtype=np.int64)
    means = np.bincount(kind_of_pair, weights=values) / np.bincount(kind_of_pair)
    return {kind: float(mean) for kind, mean in zip(kinds, means, strict=True)} | {"mean": float(means.mean())}
