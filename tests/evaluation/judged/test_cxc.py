"""Crisscrossed Captions: positives by rating, the sampled correlation, damaged files."""

import numpy as np
import pytest
import scipy.stats

from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.cxc import SAMPLES, evaluate_cxc, read_cxc
from tests.evaluation.judged.small_sets import corpus_of, student_of

HEADER = "caption,image,agg_score,sampling_method"
CAPTIONS = {"10": ["101"], "20": ["102"], "30": ["103"], "40": ["104"], "50": ["105"]}
ROWS = [
    (101, 10, 4.99),
    (102, 20, 3.0),
    (103, 30, 2.99),
    (104, 40, 5.0),
    (102, 10, 3.5),
    (101, 40, 0.0),
]
# Nothing is known of caption 105 and image 50, which the file does not hold; both would win every query.
SIMILARITIES = [
    [0.5, 0.6, 0.1, 0.2, 0.9],
    [0.1, 0.4, 0.4, 0.3, 0.9],
    [0.2, 0.1, 0.8, 0.0, 0.9],
    [0.9, 0.3, 0.2, 0.7, 0.9],
    [0.95, 0.95, 0.95, 0.95, 0.9],
]


def write_set(path, rows=ROWS):
    """A file as the authors' are."""
    lines = [f"COCO_val2014:sentid:{c},COCO_val2014_{i:012d}.jpg,{rating},c2i_intrasim" for c, i, rating in rows]
    path.write_text("\n".join([HEADER, *lines, ""]))
    return path


def evaluate(tmp_path, path, **changes):
    """The student above on a set."""
    corpus, split = corpus_of(tmp_path / "corpus", CAPTIONS)
    return evaluate_cxc(read_cxc(path), corpus, split, student_of(SIMILARITIES), **changes)


def test_recalls_by_hand(tmp_path):
    """Positives are 10-101, 20-102, 40-104 and the unannotated 10-102; 30-103 is annotated and rated too low."""
    result = evaluate(tmp_path, write_set(tmp_path / "sits.csv"))
    assert result.queries["i2t"].ids == ["10", "20", "40"]
    assert result.queries["t2i"].ids == ["101", "102", "104"]
    # Image 20's caption ties with a wrong one, image 40 prefers 101; caption 101 prefers image 40.
    assert result.queries["i2t"].values["r1"].tolist() == [100.0, 0.0, 0.0]
    assert result.queries["t2i"].values["r1"].tolist() == [0.0, 100.0, 100.0]
    assert (result.figures["i2t_r1"], result.figures["t2i_r1"]) == (pytest.approx(100 / 3), pytest.approx(200 / 3))
    assert [result.figures[f"{d}_r{k}"] for d in ("i2t", "t2i") for k in (5, 10)] == [100.0] * 4
    counts = {"i2t_queries": 3, "t2i_queries": 3, "images": 4, "captions": 4, "pairs": 6}
    assert result.counts == counts | {"unknown_images": 0, "unknown_captions": 0}


def test_the_correlation_is_the_mean_over_samples(tmp_path):
    """Half of the images, one caption each, 1,000 times; drawn here with a generator of its own, so only close."""
    random = np.random.default_rng(0)
    captions_of = {str(image): [str(100 * image + n) for n in range(4)] for image in range(1, 61)}
    similarities = random.normal(size=(60, 240)).astype(np.float32)
    rows, rated = [], {}
    for image in range(60):
        for caption in random.choice(240, 1 + image % 6, replace=False):
            rating = round(float(np.clip(2.5 + similarities[image, caption] + random.normal(), 0, 5)), 2)
            rows.append((100 * (caption // 4 + 1) + caption % 4, image + 1, rating))
            rated.setdefault(image, []).append((similarities[image, caption], rating))
    corpus, split = corpus_of(tmp_path / "corpus", captions_of)
    result = evaluate_cxc(read_cxc(write_set(tmp_path / "sits.csv", rows)), corpus, split, student_of(similarities))
    drawn = []
    for _ in range(SAMPLES):
        chosen = random.choice(60, 30, replace=False)
        pairs = [rated[image][random.integers(len(rated[image]))] for image in chosen]
        drawn.append(scipy.stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    assert result.figures["sits_spearman"] == pytest.approx(np.mean(drawn), abs=0.02)
    assert result.figures["sits_spearman_deviation"] == pytest.approx(np.std(drawn), abs=0.02)
    assert 0.3 < result.figures["sits_spearman"] < 0.9


def test_the_seed_decides_the_samples(tmp_path):
    """Same seed, same figure; another seed, another one."""
    path = write_set(tmp_path / "sits.csv")
    figures = [evaluate(tmp_path / name, path, seed=seed).figures["sits_spearman"] for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert figures[0] == figures[1] != figures[2]


def test_unknown_ids(tmp_path):
    """Pairs with an unknown side are left out, their known side still can be found."""
    path = write_set(tmp_path / "sits.csv", [*ROWS, (105, 77, 4.0), (999, 50, 4.0)])
    result = evaluate(tmp_path, path, unknown_limit=0.2)
    assert result.unknown == ("COCO_val2014_000000000077.jpg", "COCO_val2014:sentid:999")
    assert (result.counts["pairs"], result.counts["images"], result.counts["captions"]) == (6, 5, 5)
    assert (result.counts["unknown_images"], result.counts["unknown_captions"]) == (1, 1)
    with pytest.raises(CorpusError, match="2 of 12 ids are not in split 'test'"):
        evaluate(tmp_path / "again", path)


def test_three_images_are_too_few(tmp_path):
    """Half of them give no correlation."""
    path = write_set(tmp_path / "sits.csv", ROWS[:2])
    with pytest.raises(CorpusError, match=r"sits.csv: 2 of its images are in split 'test'; expected at least four to correlate"):
        evaluate(tmp_path, path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("COCO_val2014:sentid:1,COCO_val2014_000000000010.jpg,5.1,x", "line 3, agg_score: '5.1'; expected a number from 0 to 5"),
        ("COCO_val2014:sentid:1,COCO_val2014_000000000010.jpg,,x", "line 3, agg_score: ''"),
        ("COCO_val2014:sentid:1,COCO_val2014_000000000010.jpg,5", "line 3: 3 columns; expected 4"),
        ("1,COCO_val2014_000000000010.jpg,5,x", "line 3, caption: '1'; expected COCO_val2014:sentid:<number>"),
        ("COCO_val2014:sentid:1,COCO_val2014:sentid:2,5,x", "line 3, image: 'COCO_val2014:sentid:2'"),
        ("COCO_val2014:sentid:101,COCO_val2014_000000000010.jpg,5,x", "line 3: the pair was rated at .*line 2 already"),
    ],
)
def test_a_damaged_row(tmp_path, line, message):
    """A rating, an id or a cell that is none, and a pair that is rated twice."""
    path = write_set(tmp_path / "sits.csv", ROWS[:1])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(CorpusError, match=message):
        read_cxc(path)


def test_ratings_of_another_kind(tmp_path):
    """STS holds pairs of captions, under another header."""
    path = tmp_path / "sts.csv"
    path.write_text("caption1,caption2,agg_score,sampling_method\nCOCO_val2014:sentid:1,COCO_val2014:sentid:2,1.56,c2c_isim\n")
    with pytest.raises(
        CorpusError, match=r"begins with 'caption1,caption2,.*'; expected the header 'caption,image,.* of CxC's SITS"
    ):
        read_cxc(path)
