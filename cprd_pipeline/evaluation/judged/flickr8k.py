"""Flickr8k's expert judgments: three people graded captions for images, most of them other images' captions.

Source: Hodosh, Young and Hockenmaier 2013, "Framing Image Description as a Ranking Task", JAIR 47; the files
`ExpertAnnotations.txt` and `Flickr8k.token.txt`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.matching import UNKNOWN_LIMIT, Key, Lookup, check_known, image_lookup
from cprd_pipeline.evaluation.judged.reading import Row, read_table
from cprd_pipeline.evaluation.judged.result import JudgedResult
from cprd_pipeline.evaluation.students import EmbeddedStudent
from cprd_pipeline.metrics.judged import kendall_taus
from cprd_pipeline.metrics.similarities import pair_similarities

JUDGMENTS = "ExpertAnnotations.txt"
TEXTS = "Flickr8k.token.txt"

_CAPTION = re.compile(r"(.+)#\d+", re.ASCII)
_GRADES = ("1", "2", "3", "4")


@dataclass(frozen=True)
class Flickr8kExperts:
    """Graded pairs of an image and a caption.

    Args:
        path: The folder of the files.
        images: File name of each pair's image.
        captions: Id of each pair's caption, `<file name of the image it was written for>#<number>`.
        grades: By three experts: 1 the caption does not describe the image at all, 4 it does; int64 [P, 3].
        texts: Text of each caption id, stripped.
    """

    path: Path
    images: tuple[str, ...]
    captions: tuple[str, ...]
    grades: Int64[np.ndarray, "P 3"]
    texts: Mapping[str, str]


def read_flickr8k(path: Path) -> Flickr8kExperts:
    """Read a folder with `ExpertAnnotations.txt` and `Flickr8k.token.txt`.

    Raises:
        CorpusError: A file is missing or not UTF-8; a row has more or fewer columns (two rows in one line), an id twice, or a
            grade that is none; or a judged caption has no text.
    """
    texts: dict[str, str] = {}
    for row in read_table(path / TEXTS, "Flickr8k's captions", "\t", ("caption id", "text"), header=False, quoted=False):
        if _caption_id(row, 0) in texts:
            raise CorpusError(f"{row.where}: caption {row.cells[0]!r} occurs twice", expected="every id once")
        texts[row.cells[0]] = row.cells[1].strip()
    columns = ("image", "caption id", "first grade", "second grade", "third grade")
    rows = read_table(path / JUDGMENTS, "Flickr8k's expert judgments", "\t", columns, header=False, quoted=False)
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        pair = row.cells[0], _caption_id(row, 1)
        first = seen.setdefault(pair, row.where)
        if first != row.where:
            raise CorpusError(f"{row.where}: the pair was judged at {first} already", expected="one row a pair")
        if pair[1] not in texts:
            raise CorpusError(
                f"{row.where}: caption {pair[1]!r} is not in {TEXTS}",
                expected="the text of every caption",
                do="fetch both files again",
            )
    grades = np.array([[_grade(row, column) for column in (2, 3, 4)] for row in rows], dtype=np.int64)
    images, captions = zip(*seen, strict=True)
    return Flickr8kExperts(path, images, captions, grades, texts)


def evaluate_flickr8k(
    judged: Flickr8kExperts, corpus: Corpus, split: Split, student: EmbeddedStudent, *, unknown_limit: float = UNKNOWN_LIMIT
) -> JudgedResult:
    """Kendall's tau between similarities and the experts' grades.

    As the field reports it since SPICE (protocol of CLIPScore, Hessel et al. 2021, arXiv:2104.08718, appendix A): an image
    with its own caption is left out (158 of 5,822 pairs), each of the other pairs counts three times, once for each
    expert's grade, and tau-c is taken over all of them.

    Images are matched by file name, captions by text, since a corpus may number them its own way.

    Args:
        judged: What `read_flickr8k` gave.
        corpus: A corpus with Flickr8k's images.
        split: The split that holds Flickr8k's test images.
        student: Its embeddings.
        unknown_limit: Share of the judged images and captions that may be unknown.

    Returns:
        Figures `tau_c` and `tau_b`, in [-1, 1]. Counts: `pairs` that were used, `own_captions` that were left out,
        `unknown_images`, `unknown_captions`, and `pairs_unknown`, left out because of those.

    Raises:
        CorpusError: Too many ids are unknown, or no pair is left.
    """
    foreign = np.array([caption.rpartition("#")[0] != image for image, caption in zip(judged.images, judged.captions, strict=True)])
    image_ids, caption_ids = image_lookup(corpus, split), _text_lookup(judged, corpus, split)
    images, captions = image_ids.places(judged.images), caption_ids.places(judged.captions)
    unknown = check_known(judged.path, split, [image_ids, caption_ids], unknown_limit)
    used = np.flatnonzero((images >= 0) & (captions >= 0) & foreign)
    if not len(used):
        raise CorpusError(f"{judged.path}: no judged pair has both sides in split {split.name!r}", expected="at least one")
    similarities = pair_similarities(student.images, student.captions, images[used], captions[used]).astype(np.float64)
    taus = kendall_taus(np.repeat(similarities, 3), judged.grades[used].ravel().astype(np.float64))
    own = int((~foreign).sum())
    counts = {"pairs": len(used), "own_captions": own, "pairs_unknown": len(foreign) - own - len(used)}
    counts |= {"unknown_images": len(image_ids.unknown), "unknown_captions": len(caption_ids.unknown)}
    return JudgedResult({"tau_c": taus.c, "tau_b": taus.b}, counts, unknown)


def _text_lookup(judged: Flickr8kExperts, corpus: Corpus, split: Split) -> Lookup:
    """Places in `split.captions` by text: whichever of equal captions it is, its embedding is the same."""
    places: dict[Key, int] = {}
    for place, row in enumerate(split.captions):
        places.setdefault(corpus.texts[row].strip(), place)
    return Lookup(places, lambda caption: judged.texts[caption])


def _caption_id(row: Row, column: int) -> str:
    cell = row.cells[column]
    if not _CAPTION.fullmatch(cell):
        raise CorpusError(f"{row.where}: caption id {cell[:60]!r}", expected="<image file>#<number>", do="mend or remove this row")
    return cell


def _grade(row: Row, column: int) -> int:
    if row.cells[column] not in _GRADES:
        raise CorpusError(f"{row.where}: grade {row.cells[column][:40]!r}", expected="1, 2, 3 or 4", do="mend or remove this row")
    return int(row.cells[column])
