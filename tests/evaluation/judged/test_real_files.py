"""The published files of the judged sets, where the shared data folder is; they are never part of the repository."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.cxc import evaluate_cxc, read_cxc
from cprd_pipeline.evaluation.judged.eccv import evaluate_eccv, read_eccv
from cprd_pipeline.evaluation.judged.flickr8k import evaluate_flickr8k, read_flickr8k
from cprd_pipeline.evaluation.judged.hard_negatives import evaluate_hard_negatives
from cprd_pipeline.evaluation.judged.negclip import read_negclip
from cprd_pipeline.evaluation.judged.sugarcrepe import read_sugarcrepe
from cprd_pipeline.evaluation.judged.valse import read_valse
from cprd_pipeline.evaluation.students import EmbeddedStudent
from tests.evaluation.judged.small_sets import corpus_of

DATA = os.environ.get("CPRD_TEST_DATA")
FORMATS = Path(DATA or ".") / "formats"

pytestmark = pytest.mark.skipif(not DATA, reason="CPRD_TEST_DATA does not name the shared data folder")


def noisy_student(split, places, width=32, noise=1.0):
    """Random image vectors, each caption near the vector of its own image."""
    random = np.random.default_rng(1)
    images = random.normal(size=(len(split.images), width)).astype(np.float32)
    captions = (images[places] + noise * random.normal(size=(len(places), width))).astype(np.float32)
    unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (images, captions)]
    return EmbeddedStudent("noisy", *unit)


def prepared(folder, captions_of, texts=None):
    """A corpus with real ids and a noisy student of it."""
    corpus, split = corpus_of(folder, captions_of, texts)
    places = np.repeat(np.arange(len(captions_of)), [len(members) for members in captions_of.values()])
    return corpus, split, noisy_student(split, places)


def karpathy(path):
    """Captions of each COCO or Flickr8k id, and texts, of a file in Karpathy's layout."""
    images = json.loads(path.read_text())["images"]
    captions_of = {str(image.get("cocoid", image["filename"])): [str(s["sentid"]) for s in image["sentences"]] for image in images}
    return captions_of, {str(s["sentid"]): s["raw"] for image in images for s in image["sentences"]}


@pytest.fixture(scope="module")
def coco_5k(tmp_path_factory):
    """All ids of COCO 5K test."""
    original = json.loads((FORMATS / "eccv_caption" / "original_image_to_caption.json").read_text())
    return prepared(
        tmp_path_factory.mktemp("coco") / "corpus", {image: [str(c) for c in members] for image, members in original.items()}
    )


def best_first(queries, items, query_ids, item_ids, asked):
    """The first 60 items of each query."""
    row_of = {query: row for row, query in enumerate(query_ids)}
    items_of = np.array(item_ids)
    return {query: items_of[np.argsort(-(items @ queries[row_of[query]]))[:60]].tolist() for query in asked}


def test_eccv_caption_in_full(coco_5k):
    """The published counts, and the figures by plain loops over lists of ids."""
    corpus, split, student = coco_5k
    result = evaluate_eccv(read_eccv(FORMATS / "eccv_caption"), corpus, split, student)
    expected = {"i2t_queries": 1261, "t2i_queries": 1332, "images": 5000, "captions": 25000}
    assert result.counts == expected | {"unknown_images": 0, "unknown_captions": 2}
    assert result.unknown == ("144675", "467259")
    images, captions = (
        [int(items.ids[row]) for row in rows]
        for items, rows in zip((corpus.images, corpus.captions), (split.images, split.captions), strict=True)
    )
    for direction, name, sides in (
        ("i2t", "eccv_image_to_caption", (student.images, student.captions, images, captions)),
        ("t2i", "eccv_caption_to_image", (student.captions, student.images, captions, images)),
    ):
        judged = {
            int(k): {v for v in found if v not in (144675, 467259)}
            for k, found in json.loads((FORMATS / "eccv_caption" / f"{name}.json").read_text()).items()
        }
        orders = best_first(*sides, judged)
        hits = {query: np.array([item in judged[query] for item in order]) for query, order in orders.items()}
        r = {query: len(found) for query, found in judged.items()}
        precision = {query: np.cumsum(hit) / np.arange(1, len(hit) + 1) for query, hit in hits.items()}
        map_r = np.mean([(precision[q] * hits[q])[: r[q]].sum() / r[q] for q in judged])
        figures = [map_r, np.mean([precision[q][r[q] - 1] for q in judged]), np.mean([hits[q][0] for q in judged])]
        ours = [result.figures[f"{direction}_{metric}"] for metric in ("map_r", "r_precision", "r1")]
        assert ours == pytest.approx([100 * figure for figure in figures], abs=1e-6)
        assert 5 < ours[0] < 60


def test_cxc_positives_are_those_of_the_eccv_package():
    """A rating of 3 or more makes a positive: so the package made its maps."""
    maps = json.loads((FORMATS / "eccv_caption" / "cxc_caption_to_image.json").read_text())
    judged = read_cxc(FORMATS / "cxc" / "sits_test.first1000.csv")
    theirs = [
        int(image[-16:-4]) in maps.get(caption.rpartition(":")[2], [])
        for caption, image in zip(judged.captions, judged.images, strict=True)
    ]
    assert (judged.ratings >= 3).tolist() == theirs
    assert 0 < sum(theirs) < 1000


def test_cxc_on_coco(coco_5k):
    """All 1000 rows are known; recalls among the file's images and captions by plain loops."""
    corpus, split, student = coco_5k
    judged = read_cxc(FORMATS / "cxc" / "sits_test.first1000.csv")
    result = evaluate_cxc(judged, corpus, split, student)
    assert (result.counts["pairs"], result.counts["unknown_images"], result.counts["unknown_captions"]) == (1000, 0, 0)
    rows = {"image": {}, "caption": {}}
    for place, row in enumerate(split.images):
        rows["image"][int(corpus.images.ids[row])] = place
    for place, row in enumerate(split.captions):
        rows["caption"][int(corpus.captions.ids[row])] = place
    images = [rows["image"][int(name[-16:-4])] for name in judged.images]
    captions = [rows["caption"][int(name.rpartition(":")[2])] for name in judged.captions]
    positive = {(i, c) for i, c, rating in zip(images, captions, judged.ratings, strict=True) if rating >= 3}
    pool = np.array(sorted(set(captions)))
    hits = []
    for image in sorted({i for i, _ in positive}):
        order = pool[np.argsort(-(student.captions[pool] @ student.images[image]))]
        hits.append([any((image, caption) in positive for caption in order[:k]) for k in (1, 5, 10)])
    expected = 100 * np.mean(hits, axis=0)
    assert [result.figures[f"i2t_r{k}"] for k in (1, 5, 10)] == pytest.approx(expected.tolist())
    assert (result.counts["captions"], result.counts["i2t_queries"]) == (len(pool), len(hits))
    assert expected[2] > 0
    assert -1 < result.figures["sits_spearman"] < 1


def test_cxc_of_the_other_split_is_refused(coco_5k):
    """The ratings of val on test."""
    corpus, split, student = coco_5k
    with pytest.raises(CorpusError, match=r"ids are not in split 'test', the first 'COCO_val2014_000000431431.jpg'"):
        evaluate_cxc(read_cxc(FORMATS / "cxc" / "sits_val.first1000.csv"), corpus, split, student)


@pytest.mark.parametrize("name", ["sis_test.first1000.csv", "sts_test.first1000.csv", "sits.our_photos.csv"])
def test_cxc_files_of_another_layout(name):
    """Pairs of images, pairs of captions, and an extra column."""
    with pytest.raises(CorpusError, match=r"expected .*caption, ?image, ?agg_score, ?sampling_method"):
        read_cxc(FORMATS / "cxc" / name)


def test_flickr8k_in_full(tmp_path):
    """Exactly what CLIPScore's protocol counts: 5,664 pairs, 158 left out; tau-c by SciPy."""
    judged = read_flickr8k(FORMATS / "flickr8k")
    captions_of = {}
    for caption in judged.texts:
        captions_of.setdefault(caption.partition("#")[0], []).append(caption)
    captions_of = {image: captions_of[image] for image in sorted(set(judged.images))}
    corpus, split, student = prepared(tmp_path / "corpus", captions_of, judged.texts)
    result = evaluate_flickr8k(judged, corpus, split, student)
    counts = {"pairs": 5664, "own_captions": 158, "pairs_unknown": 0, "unknown_images": 0, "unknown_captions": 0}
    assert result.counts == counts
    place_of_text = {}
    for place, row in enumerate(split.captions):
        place_of_text.setdefault(corpus.texts[row], place)
    place_of_image = {corpus.images.ids[row]: place for place, row in enumerate(split.images)}
    similarities, grades = [], []
    for line in (FORMATS / "flickr8k" / "ExpertAnnotations.txt").read_text().splitlines():
        image, caption, *given = line.split("\t")
        text = judged.texts[caption]
        if text not in [judged.texts[own] for own in captions_of[image]]:
            similarity = student.images[place_of_image[image]] @ student.captions[place_of_text[text]]
            similarities += [float(similarity)] * 3
            grades += [int(grade) for grade in given]
    tau = scipy.stats.kendalltau(np.float32(similarities), grades, variant="c").statistic
    assert result.figures["tau_c"] == pytest.approx(tau, abs=1e-5)


def test_flickr8k_with_our_photographs(tmp_path):
    """Karpathy's layout, whose caption ids are other ones: 135 test images and a part of the pairs, when that is allowed."""
    captions_of, texts = karpathy(Path(DATA) / "photos" / "dataset_flickr8k.json")
    judged = read_flickr8k(FORMATS / "flickr8k")
    corpus, split, student = prepared(tmp_path / "corpus", captions_of, texts)
    result = evaluate_flickr8k(judged, corpus, split, student, unknown_limit=0.95)
    assert result.counts["pairs"] + result.counts["own_captions"] >= 138
    with pytest.raises(CorpusError, match="of 1,977 ids are not in split 'test'"):
        evaluate_flickr8k(judged, corpus, split, student)


def test_sugarcrepe_with_our_photographs(tmp_path):
    """7,511 pairs, of which 134 use our photographs; a student that sees nothing but chance."""
    judged = read_sugarcrepe(FORMATS / "sugarcrepe")
    assert len(judged.pairs) == 692 + 2062 + 788 + 1652 + 1406 + 666 + 245
    corpus, split, student = prepared(tmp_path / "corpus", *karpathy(Path(DATA) / "photos_coco" / "dataset_coco.json"))

    def embed(texts):
        return np.random.default_rng(0).normal(size=(len(texts), 32)).astype(np.float32)

    result = evaluate_hard_negatives(judged, corpus, split, student, embed, unknown_limit=0.99)
    assert (result.counts["pairs"], result.counts["pairs_unknown"]) == (134, 7511 - 134)
    assert 30 < result.figures["mean"] < 70
    with pytest.raises(CorpusError, match="ids are not in split 'test'"):
        evaluate_hard_negatives(judged, corpus, split, student, embed)


def test_valse_and_negclip():
    """As many pairs as the files hold, less those of VALSE that people did not confirm."""
    valse = read_valse(FORMATS / "valse")
    assert len(valse.pairs) + valse.left_out == 500
    assert valse.left_out == 8 + 10 + 3 + 7 + 11
    negclip = read_negclip(FORMATS / "aro_negclip" / "valid_neg_clip.first1000.tsv")
    assert len(negclip.pairs) == 585 + 2 * 291 + 3 * 107 + 4 * 16 + 5
    assert negclip.pairs[0].foil == "A umbrella holding a flowered child and petting a yak ."


def test_real_damage(tmp_path):
    """A block of 0xFF among the rows, two captions in one line, a Git LFS pointer."""
    for name, damaged, message in (
        (
            "ExpertAnnotations.txt",
            "CrowdFlowerAnnotations.ff_block.txt",
            r"ExpertAnnotations.txt, line \d+: byte 0x\w\w is not UTF-8",
        ),
        ("Flickr8k.token.txt", "Flickr8k.token.merged_line.txt", r"Flickr8k.token.txt, line \d+: 3 columns"),
        ("Flickr8k.token.txt", "dataset_coco.json", "Flickr8k.token.txt: a Git LFS pointer"),
    ):
        folder = tmp_path / damaged
        folder.mkdir()
        for given in ("ExpertAnnotations.txt", "Flickr8k.token.txt"):
            source = FORMATS / "damaged" / damaged if given == name else FORMATS / "flickr8k" / given
            (folder / given).symlink_to(source.resolve())
        with pytest.raises(CorpusError, match=message):
            read_flickr8k(folder)
