"""ECCV Caption: COCO's test captions and images with positives that machines proposed and people verified.

Source: Chun et al. 2022, "ECCV Caption: Correcting False Negatives by Collecting Machine-and-Human-verified Image-Caption
Associations for MS-COCO", arXiv:2204.03359; files of the package eccv_caption.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Int64
from numpy.lib.npyio import NpzFile

from cprd_pipeline.corpus.reader import Corpus, Rows, Split
from cprd_pipeline.errors import CorpusError, first_line
from cprd_pipeline.evaluation.judged.matching import UNKNOWN_LIMIT, Lookup, caption_lookup, check_known, image_lookup
from cprd_pipeline.evaluation.judged.reading import read_bytes, read_object
from cprd_pipeline.evaluation.judged.result import JudgedResult
from cprd_pipeline.evaluation.judged.retrieval import Pool, answer_judged, mean_values
from cprd_pipeline.evaluation.students import EmbeddedStudent

IMAGE_QUERIES = "eccv_image_to_caption.json"
CAPTION_QUERIES = "eccv_caption_to_image.json"
POOL = "coco_test_ids.npy"

_FIGURES = ("map_r", "r_precision", "r1")
# More may not fit into an int64; COCO has twelve at most.
_ID_DIGITS = 18


@dataclass(frozen=True)
class EccvCaption:
    """The set as it is published; all ids are COCO's numbers.

    Args:
        path: Its folder.
        image_positives: (image, caption) of image queries; int64 [P, 2].
        caption_positives: (caption, image) of caption queries; int64 [P', 2]. The two were judged apart: neither is
            the other turned round.
        captions: All captions that can be found; int64 [C], distinct.
    """

    path: Path
    image_positives: Int64[np.ndarray, "P 2"]
    caption_positives: Int64[np.ndarray, "P2 2"]
    captions: Int64[np.ndarray, " C"]


def read_eccv(path: Path) -> EccvCaption:
    """Read a folder with `eccv_image_to_caption.json`, `eccv_caption_to_image.json` and `coco_test_ids.npy`.

    Raises:
        CorpusError: A file is missing, cut off, a Git LFS pointer or of another layout; the message names the query.
    """
    images = _read_map(path / IMAGE_QUERIES, "a JSON object {image id: [caption ids]}")
    captions = _read_map(path / CAPTION_QUERIES, "a JSON object {caption id: [image ids]}")
    return EccvCaption(path, images, captions, _read_ids(path / POOL))


def evaluate_eccv(
    judged: EccvCaption, corpus: Corpus, split: Split, student: EmbeddedStudent, *, unknown_limit: float = UNKNOWN_LIMIT
) -> JudgedResult:
    """mAP@R, R-Precision and R@1 of the judged queries among all of COCO 5K test.

    For a query with R positives and rel_k = 1 where the item at rank k is one of them: AP@R = 1/R sum_{k=1..R} prec@k rel_k,
    R-Precision = prec@R, R@1 = rel_1; figures are means over queries. Captions are sought among `coco_test_ids.npy`, images
    among those with such a caption; further items of the split are not candidates. A positive that cannot be found is left
    out and lowers R (in the published files 2 of 22,550 image-to-caption positives are no test captions; the package
    eccv_caption counts them in R).

    Args:
        judged: What `read_eccv` gave.
        corpus: A corpus with COCO's ids.
        split: The split that holds COCO's (Karpathy's) test images.
        student: Its embeddings.
        unknown_limit: Share of the set's ids that may be unknown.

    Returns:
        Figures `i2t_map_r`, `i2t_r_precision`, `i2t_r1` and the same for `t2i`, in percent. Counts: `i2t_queries`,
        `t2i_queries` that were asked, `images` and `captions` that could be found, `unknown_images`, `unknown_captions`.

    Raises:
        CorpusError: Too many ids are unknown, or no query is left.
    """
    images, captions = image_lookup(corpus, split), caption_lookup(corpus, split, among=set(judged.captions.tolist()))
    places = np.unique(_places(captions, judged.captions))
    pool_captions = places[places >= 0]
    i2t, t2i = judged.image_positives, judged.caption_positives
    i2t_pairs = np.stack([_places(images, i2t[:, 0]), _places(captions, i2t[:, 1])], axis=1)
    t2i_pairs = np.stack([_places(captions, t2i[:, 0]), _places(images, t2i[:, 1])], axis=1)
    unknown = check_known(judged.path, split, [images, captions], unknown_limit)
    pool = Pool(_images_of(split, pool_captions), pool_captions)
    queries = {
        "i2t": answer_judged(student, corpus, split, "i2t", i2t_pairs, pool),
        "t2i": answer_judged(student, corpus, split, "t2i", t2i_pairs, pool),
    }
    figures = mean_values(queries["i2t"], _FIGURES, "i2t") | mean_values(queries["t2i"], _FIGURES, "t2i")
    counts = {f"{direction}_queries": len(found.ids) for direction, found in queries.items()}
    counts |= {"images": len(pool.images), "captions": len(pool.captions)}
    counts |= {"unknown_images": len(images.unknown), "unknown_captions": len(captions.unknown)}
    return JudgedResult(figures, counts, unknown, queries)


def _places(lookup: Lookup, numbers: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    return lookup.places(str(number) for number in numbers.tolist())


def _images_of(split: Split, caption_places: Rows) -> Rows:
    """Places of the images that captions are annotated for."""
    annotated = np.isin(split.positives[:, 1], split.captions[caption_places])
    return np.searchsorted(split.images, np.unique(split.positives[annotated, 0])).astype(np.int64)


def _read_map(path: Path, what: str) -> Int64[np.ndarray, "P 2"]:
    pairs: list[tuple[int, int]] = []
    for key, values in read_object(path, what).items():
        where = f"{path}: query {key[:_ID_DIGITS]!r}"
        if not (key.isascii() and key.isdigit() and len(key) <= _ID_DIGITS):
            raise CorpusError(where, expected="a COCO number as the key", do="mend or remove this entry")
        if not isinstance(values, list) or not values:
            raise CorpusError(f"{where} has {str(values)[:40]!r}", expected="a list of COCO numbers, at least one")
        pairs += [(int(key), _number(value, where)) for value in values]
    return np.array(pairs, dtype=np.int64)


def _number(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise CorpusError(f"{where} names {str(value)[:40]!r}", expected="COCO numbers")
    return value


def _read_ids(path: Path) -> Int64[np.ndarray, " C"]:
    what = "a NumPy array of caption ids, int64 [N]"
    content = BytesIO(read_bytes(path, what))
    try:
        ids: npt.NDArray[Any] | NpzFile = np.load(content, allow_pickle=False)
    except Exception as error:  # of damaged bytes NumPy also passes on what zipfile, tokenize or an allocation says
        reason = first_line(error)
        raise CorpusError(f"{path}: no NumPy array ({reason})", expected=what, do="fetch the file again") from None
    if isinstance(ids, NpzFile):
        raise CorpusError(f"{path}: an .npz archive of arrays", expected=what, do="save the array itself with numpy.save")
    if ids.ndim != 1 or ids.dtype.kind != "i" or not len(ids):
        raise CorpusError(f"{path}: {ids.dtype} {list(ids.shape)}", expected=what)
    if len(np.unique(ids)) < len(ids):
        raise CorpusError(f"{path}: {len(ids) - len(np.unique(ids))} ids occur more than once", expected=what)
    return ids.astype(np.int64)
