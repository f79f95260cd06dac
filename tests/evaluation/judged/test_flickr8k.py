"""Flickr8k's expert judgments by hand and against SciPy; damaged files."""

import numpy as np
import pytest
import scipy.stats

from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.flickr8k import evaluate_flickr8k, read_flickr8k
from tests.evaluation.judged.small_sets import corpus_of, student_of

IMAGES = ["1056338697_4f7d7ce270.jpg", "2549968784_39bfbe44f9.jpg", "106490881_5a2dd9b7bd.jpg"]
TEXTS = {f"{image}#{n}": f"caption {n} of {place} ." for place, image in enumerate(IMAGES) for n in (0, 1)}
# Karpathy numbers captions through and has no ids such as the experts'.
CAPTIONS = {image: [str(2 * place), str(2 * place + 1)] for place, image in enumerate(IMAGES)}
CORPUS_TEXTS = {str(number): text for number, text in enumerate(TEXTS.values())}
JUDGMENTS = [
    (0, 1, 1, "1 1 2"),
    (0, 2, 0, "3 4 4"),
    (1, 0, 0, "2 2 1"),
    (1, 1, 1, "4 4 4"),
    (2, 0, 1, "1 1 1"),
]
SIMILARITIES = np.arange(18).reshape(3, 6) / 18


def write_set(folder, judgments=JUDGMENTS, texts=TEXTS):
    """The two files; a judgment is the image's place, the caption's image's place, its number, and three grades."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["\t".join([IMAGES[image], f"{IMAGES[of]}#{n}", *grades.split()]) for image, of, n, grades in judgments]
    (folder / "ExpertAnnotations.txt").write_text("\n".join([*rows, ""]))
    (folder / "Flickr8k.token.txt").write_text("".join(f"{caption}\t{text}\n" for caption, text in texts.items()))
    return folder


def evaluate(tmp_path, folder, similarities=SIMILARITIES, corpus_texts=CORPUS_TEXTS, **limits):
    """A student on a set."""
    corpus, split = corpus_of(tmp_path / "corpus", CAPTIONS, corpus_texts)
    return evaluate_flickr8k(read_flickr8k(folder), corpus, split, student_of(similarities), **limits)


def test_taus_against_scipy(tmp_path):
    """All grades of all pairs but the one of an image with its own caption."""
    result = evaluate(tmp_path, write_set(tmp_path / "flickr8k"))
    similarities = np.repeat([SIMILARITIES[0, 3], SIMILARITIES[0, 4], SIMILARITIES[1, 0], SIMILARITIES[2, 1]], 3)
    grades = [1, 1, 2, 3, 4, 4, 2, 2, 1, 1, 1, 1]
    for variant in ("b", "c"):
        expected = scipy.stats.kendalltau(similarities, grades, variant=variant).statistic
        assert result.figures[f"tau_{variant}"] == pytest.approx(expected)
    assert result.counts == {"pairs": 4, "own_captions": 1, "pairs_unknown": 0, "unknown_images": 0, "unknown_captions": 0}
    assert result.unknown == ()


def test_a_student_that_agrees_with_the_experts(tmp_path):
    """Unanimous grades 1 to 4 in the order of the similarities: tau-b is 1, and tau-c 1 as there are as many of each."""
    judgments = [(0, 1, 0, "1 1 1"), (0, 1, 1, "2 2 2"), (0, 2, 0, "3 3 3"), (0, 2, 1, "4 4 4")]
    figures = evaluate(tmp_path, write_set(tmp_path / "flickr8k", judgments)).figures
    assert (figures["tau_b"], figures["tau_c"]) == (pytest.approx(1.0), pytest.approx(1.0))
    upside_down = evaluate(tmp_path / "again", tmp_path / "flickr8k", SIMILARITIES[:, ::-1]).figures
    assert upside_down["tau_b"] == pytest.approx(-1.0)


def test_a_student_that_sees_no_difference(tmp_path):
    """The same similarity everywhere: 0, not NaN."""
    result = evaluate(tmp_path, write_set(tmp_path / "flickr8k"), np.ones((3, 6)))
    assert result.figures == {"tau_c": 0.0, "tau_b": 0.0}


def test_equal_captions_are_one(tmp_path):
    """Two captions of the corpus have a text that was judged: no ambiguity, since their embeddings are equal."""
    folder = write_set(tmp_path / "flickr8k")
    result = evaluate(tmp_path, folder, corpus_texts={**CORPUS_TEXTS, "5": CORPUS_TEXTS["4"]})
    assert result.figures == evaluate(tmp_path / "again", folder).figures


def test_unknown_ids(tmp_path):
    """A caption whose text is nowhere in the split; the pair is left out and the caption named by its id."""
    texts = {**TEXTS, f"{IMAGES[1]}#1": "a caption that was edited"}
    folder = write_set(tmp_path / "flickr8k", texts=texts)
    result = evaluate(tmp_path, folder, unknown_limit=0.2)
    assert (result.unknown, result.counts["pairs"], result.counts["pairs_unknown"]) == ((f"{IMAGES[1]}#1",), 3, 1)
    with pytest.raises(CorpusError, match=r"1 of 7 ids are not in split 'test', the first '2549968784_39bfbe44f9.jpg#1'"):
        evaluate(tmp_path / "again", folder)


def test_nothing_but_own_captions(tmp_path):
    """No pair is left to correlate."""
    with pytest.raises(CorpusError, match="no judged pair has both sides in split 'test'"):
        evaluate(tmp_path, write_set(tmp_path / "flickr8k", JUDGMENTS[3:4]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{IMAGES[0]}\t{IMAGES[1]}#0\t1\t1", "line 2: 4 columns; expected 5"),
        (f"{IMAGES[0]}\t{IMAGES[1]}#0\t1\t1\t5", "line 2: grade '5'; expected 1, 2, 3 or 4"),
        (f"{IMAGES[0]}\t{IMAGES[1]}#0\t1\t1\t0.5", "line 2: grade '0.5'"),
        (f"{IMAGES[0]}\t{IMAGES[1]}\t1\t1\t1", "line 2: caption id '2549968784_39bfbe44f9.jpg'; expected <image file>#<number>"),
        (f"{IMAGES[0]}\t{IMAGES[1]}#7\t1\t1\t1", "line 2: caption '2549968784_39bfbe44f9.jpg#7' is not in Flickr8k.token.txt"),
        (f"{IMAGES[0]}\t{IMAGES[1]}#1\t1\t1\t1", "line 2: the pair was judged at .*line 1 already"),
    ],
)
def test_a_damaged_judgment(tmp_path, line, message):
    """Cells missing (the three of CrowdFlower's file, say), no grade, no caption id, no text, twice."""
    folder = write_set(tmp_path / "flickr8k", JUDGMENTS[:1])
    path = folder / "ExpertAnnotations.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(CorpusError, match=message):
        read_flickr8k(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.jpg#0\tA bird .a.jpg#1\tA parakeet .\n", "line 1: 3 columns; expected 2 .caption id, text. of Flickr8k's captions"),
        ("a.jpg\tA bird .\n", "line 1: caption id 'a.jpg'"),
        ("a.jpg#0\tA bird .\na.jpg#0\tA bird .\n", "line 2: caption 'a.jpg#0' occurs twice"),
        ("", "no rows"),
    ],
)
def test_damaged_captions(tmp_path, content, message):
    """Two rows in one line, an id that is none, an id twice, nothing."""
    folder = write_set(tmp_path / "flickr8k")
    (folder / "Flickr8k.token.txt").write_text(content)
    with pytest.raises(CorpusError, match=message):
        read_flickr8k(folder)
