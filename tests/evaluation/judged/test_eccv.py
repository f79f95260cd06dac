"""ECCV Caption on three images, by hand and against plain loops; damaged files."""

import json

import numpy as np
import pytest

from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.eccv import evaluate_eccv, read_eccv
from tests.evaluation.judged.small_sets import corpus_of, student_of, write_json

CAPTIONS = {"10": ["101", "102"], "20": ["103", "104"], "30": ["105", "106", "107"]}
# The last caption, 107, is the one too many: it is in the split and not among the set's captions.
SIMILARITIES = [
    [0.90, 0.10, 0.70, 0.80, 0.00, 0.05, 0.95],
    [0.30, 0.00, 0.20, 0.40, 0.60, 0.10, 0.00],
    [0.20, 0.00, 0.10, 0.10, 0.50, 0.50, 0.99],
]
IMAGE_QUERIES = {"10": [101, 102, 103], "30": [105]}
CAPTION_QUERIES = {"101": [10, 20], "104": [30], "105": [20]}
POOL = [101, 102, 103, 104, 105, 106]


def write_set(folder, images=None, captions=None, pool=None):
    """The three files."""
    write_json(folder / "eccv_image_to_caption.json", IMAGE_QUERIES if images is None else images)
    write_json(folder / "eccv_caption_to_image.json", CAPTION_QUERIES if captions is None else captions)
    np.save(folder / "coco_test_ids.npy", np.array(POOL if pool is None else pool))
    return folder


def evaluate(tmp_path, folder, **limits):
    """The student above on a set."""
    corpus, split = corpus_of(tmp_path / "corpus", CAPTIONS)
    return evaluate_eccv(read_eccv(folder), corpus, split, student_of(SIMILARITIES), **limits)


def test_figures_by_hand(tmp_path):
    """Image 10 has its three at ranks 1, 3 and 4 of the six; 30's ties with a wrong one; captions rank them 1, 3 and 1."""
    result = evaluate(tmp_path, write_set(tmp_path / "eccv"))
    assert result.figures == {
        "i2t_map_r": pytest.approx(100 * (5 / 9 + 0) / 2),
        "i2t_r_precision": pytest.approx(100 * (2 / 3 + 0) / 2),
        "i2t_r1": 50.0,
        "t2i_map_r": pytest.approx(100 * (1 + 0 + 1) / 3),
        "t2i_r_precision": pytest.approx(100 * (1 + 0 + 1) / 3),
        "t2i_r1": pytest.approx(100 * 2 / 3),
    }
    assert result.unknown == ()
    expected = {"i2t_queries": 2, "t2i_queries": 3, "images": 3, "captions": 6, "unknown_images": 0, "unknown_captions": 0}
    assert result.counts == expected


def test_results_of_each_query(tmp_path):
    """Queries by their corpus ids in the split's order, whatever the order of the file; means are the figures."""
    result = evaluate(tmp_path, write_set(tmp_path / "eccv", captions=dict(reversed(CAPTION_QUERIES.items()))))
    assert result.queries["i2t"].ids == ["10", "30"]
    assert result.queries["t2i"].ids == ["101", "104", "105"]
    assert result.queries["i2t"].values["map_r"] == pytest.approx([500 / 9, 0])
    assert result.queries["t2i"].values["r1"].tolist() == [100.0, 0.0, 100.0]


def test_unknown_ids_are_left_out_and_counted(tmp_path):
    """An unknown query is not asked, an unknown positive (107 is none of the set's captions) lowers R."""
    images = {**IMAGE_QUERIES, "10": [101, 102, 103, 107], "77": [101]}
    captions = {**CAPTION_QUERIES, "105": [20, 78], "999": [10]}
    folder = write_set(tmp_path / "eccv", images, captions)
    result = evaluate(tmp_path, folder, unknown_limit=0.4)
    assert result.figures["i2t_map_r"] == pytest.approx(100 * (5 / 9) / 2)
    assert result.figures["t2i_map_r"] == pytest.approx(100 * 2 / 3)
    assert (result.counts["unknown_images"], result.counts["unknown_captions"]) == (2, 2)
    assert result.unknown == ("77", "78", "107")
    with pytest.raises(CorpusError, match="4 of 13 ids are not in split 'test', the first '77', '78', '107'; expected at most 5%"):
        evaluate(tmp_path / "again", folder)


def test_a_direction_without_a_query(tmp_path):
    """Nothing to report is not zero percent."""
    folder = write_set(tmp_path / "eccv", captions={"101": [77]})
    with pytest.raises(CorpusError, match="no t2i query of the judged set has a positive in split 'test'"):
        evaluate(tmp_path, folder, unknown_limit=0.5)


def average_precision(order, positives):
    """1/R sum over k <= R of precision at k where the item at k is a positive."""
    found, total = 0, 0.0
    for k, item in enumerate(order[: len(positives)], 1):
        if item in positives:
            found += 1
            total += found / k
    return total / len(positives)


def test_figures_equal_plain_loops(tmp_path):
    """40 images with 5 captions each and random positives of both directions."""
    random = np.random.default_rng(5)
    captions_of = {str(image): [str(1000 + 5 * image + n) for n in range(5)] for image in range(1, 41)}
    images, captions = [int(i) for i in captions_of], [int(c) for members in captions_of.values() for c in members]
    similarities = random.normal(size=(40, 200)).astype(np.float32)
    image_queries = {i: random.choice(captions, 1 + i % 20, replace=False).tolist() for i in images[::2]}
    caption_queries = {c: random.choice(images, 1 + c % 7, replace=False).tolist() for c in captions[::3]}
    folder = write_set(tmp_path / "eccv", image_queries, caption_queries, captions)
    corpus, split = corpus_of(tmp_path / "corpus", captions_of)
    figures = evaluate_eccv(read_eccv(folder), corpus, split, student_of(similarities)).figures
    for direction, queries, items, of_query, asked in (
        ("i2t", images, captions, similarities, image_queries),
        ("t2i", captions, images, similarities.T, caption_queries),
    ):
        orders = {query: [items[n] for n in np.argsort(-of_query[queries.index(query)])] for query in asked}
        map_r = np.mean([average_precision(orders[query], set(found)) for query, found in asked.items()])
        precision = np.mean([len(set(orders[q][: len(found)]) & set(found)) / len(found) for q, found in asked.items()])
        first = np.mean([orders[query][0] in found for query, found in asked.items()])
        expected = [100 * map_r, 100 * precision, 100 * first]
        assert [figures[f"{direction}_{name}"] for name in ("map_r", "r_precision", "r1")] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"image 10": [1]}, "query 'image 10'; expected a COCO number as the key"),
        ({"10": []}, r"query '10' has '\[\]'; expected a list of COCO numbers, at least one"),
        ({"10": 101}, "query '10' has '101'; expected a list"),
        ({"10": ["101"]}, "query '10' names '101'; expected COCO numbers"),
        ({"10": [True]}, "query '10' names 'True'"),
        ({"10": [-1]}, "query '10' names '-1'"),
        ({"9" * 20: [1]}, "query '9{18}'; expected a COCO number as the key"),
        ({"9" * 5000: [1]}, "query '9{18}'; expected a COCO number as the key"),
        ({"10": [10**20]}, "query '10' names '1000"),
    ],
)
def test_a_damaged_map(tmp_path, content, message):
    """Keys or values that are no COCO numbers."""
    with pytest.raises(CorpusError, match=message):
        read_eccv(write_set(tmp_path / "eccv", images=content))


def test_a_map_that_was_cut_off(tmp_path):
    """The message names the file and the place."""
    folder = write_set(tmp_path / "eccv")
    path = folder / "eccv_caption_to_image.json"
    path.write_text(json.dumps(CAPTION_QUERIES)[:20])
    with pytest.raises(CorpusError, match=r"eccv_caption_to_image.json: not JSON at line 1, column 19"):
        read_eccv(folder)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1, 2]]), r"int64 \[1, 2\]; expected a NumPy array of caption ids"),
        (np.array([1.0]), r"float64 \[1\]"),
        (np.array([], dtype=np.int64), r"int64 \[0\]"),
        (np.array([1, 2, 1]), "1 ids occur more than once"),
        (np.array([{}], dtype=object), "no NumPy array .Object arrays cannot be loaded"),
    ],
)
def test_ids_of_another_kind(tmp_path, array, message):
    """Another shape, another type, nothing, ids twice, and pickled objects, which are not unpickled."""
    folder = write_set(tmp_path / "eccv")
    np.save(folder / "coco_test_ids.npy", array)
    with pytest.raises(CorpusError, match=message):
        read_eccv(folder)


def test_ids_in_an_archive(tmp_path):
    """What numpy.savez writes, under the name of an array."""
    folder = write_set(tmp_path / "eccv")
    np.savez(tmp_path / "ids.npz", np.array(POOL))
    (tmp_path / "ids.npz").rename(folder / "coco_test_ids.npy")
    with pytest.raises(CorpusError, match=r"coco_test_ids.npy: an .npz archive of arrays; expected a NumPy array .*numpy\.save"):
        read_eccv(folder)


def npy_of(shape):
    """The head of an .npy file that claims a shape."""
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", b"id\n101\n", b"PK\x03\x04cut off", npy_of("(" * 9000), npy_of(f"({10**30},)"), npy_of(f"({10**15},)")],
    ids=["empty", "cut off", "text", "archive cut off", "no shape", "too many", "more than memory"],
)
def test_ids_that_are_no_array(tmp_path, content):
    """NumPy passes on what other libraries say."""
    folder = write_set(tmp_path / "eccv")
    (folder / "coco_test_ids.npy").write_bytes(content)
    with pytest.raises(CorpusError, match=r"coco_test_ids.npy: no NumPy array .*; expected a NumPy array of caption ids"):
        read_eccv(folder)
