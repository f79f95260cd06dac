"""Real files of every format, as far as there are some: counts, texts and errors as their README tells."""

import json

import pytest

from cprd_pipeline.corpus import prepare
from cprd_pipeline.corpus.checking import run_check
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.corpus.settings import PrepareSettings
from cprd_pipeline.errors import CorpusError
from tests.corpus.made_sources import read


@pytest.mark.parametrize(
    ("path", "images", "captions"),
    [
        ("formats/coco/captions_val2017.json", 5000, 25014),
        ("formats/coco/captions_train2017.coco_mini.json", 80, 400),
        ("formats/flickr8k/Flickr8k.token.txt", 8092, 40460),
        ("formats/flickr8k/Flickr8k.arabic.first600.txt", 200, 600),
        ("formats/flickr8k/captions.first1000images.csv", 1000, 5000),
        ("formats/flickr30k/results.comma_mangled.first60images.csv", 60, 300),
        ("formats/flickr30k/results.one_image.csv", 1, 5),
        ("formats/flickr30k/results.pipe_quoted.csv", 3, 15),
        ("formats/flickr30k/results.pipe_bad_row.csv", 2, 6),
        ("formats/flickr30k/results_20130124.quoted.token", 2, 10),
        ("formats/karpathy/dataset_flickr8k.excerpt.json", 5, 25),
        ("formats/karpathy/dataset_coco.excerpt.json", 1, 5),
        ("formats/webdataset/flickr8k_derived_00000.tar", 16, 80),
        ("formats/webdataset/clip_retrieval_image1.tar", 4, 0),
        ("photos/not_in_any_split.token.txt", 9, 45),
        ("photos_coco/annotations/captions_val2017.json", 104, 520),
    ],
)
def test_recognised_and_read(real_data, path, images, captions):
    """By their content alone."""
    records = read(real_data / path)
    assert (len(records.images), len(records.captions)) == (images, captions)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("CrowdFlowerAnnotations.ff_block.txt", r"line 327 is not UTF-8 \(16,384 bytes of 0xFF\)"),
        ("Flickr8k.token.merged_line.txt", r"line 9 holds two captions \('e102455176_5f8ead62d5\.jpg#3' stands inside\)"),
        ("dataset_coco.json", r"a Git LFS pointer"),
    ],
)
def test_damaged_files(real_data, path, message):
    """Real corruption, each in one line."""
    with pytest.raises(CorpusError, match=message):
        read(real_data / "formats" / "damaged" / path)


def test_arabic_texts_are_those_of_the_file(real_data):
    """Byte for byte."""
    path = real_data / "formats/flickr8k/Flickr8k.arabic.first600.txt"
    lines = [line.split("\t", 1)[1] for line in path.read_text(encoding="utf-8").splitlines()]
    assert [caption.text for caption in read(path).captions] == lines


def test_one_set_in_two_formats(real_data):
    """Karpathy's JSON and the token file with its lists agree about photographs, splits and texts."""
    photos, lists = real_data / "photos", real_data / "formats/flickr8k"
    tokens = read(lists / "Flickr8k.token.txt", images=str(photos / "images"))
    texts = {}
    for caption in tokens.captions:
        texts.setdefault(caption.image_ids[0], []).append(caption.text)
    for entry in json.loads((photos / "dataset_flickr8k.json").read_text())["images"]:
        assert texts[entry["filename"]] == [sentence["raw"] for sentence in entry["sentences"]]
    split_lists = {split: str(lists / f"Flickr_8k.{name}Images.txt") for split, name in (("train", "train"), ("val", "dev"))}
    files = {"paths": str(lists / "Flickr8k.token.txt"), "images": str(photos / "images"), "split_lists": split_lists}
    report = run_check(PrepareSettings.model_validate({"source": "auto", "files": files}))
    assert {split: n["images"] for split, n in report.results["splits"].items()} == {"train": 6000, "val": 1000}
    assert report.results["unlisted_images"] == 1092


def test_coco_by_split_with_its_photographs(real_data, tmp_path):
    """Two captions files, a split each: pictures are found in their archives' folders."""
    home = real_data / "photos_coco"
    paths = {split: str(home / f"annotations/captions_{split}2017.json") for split in ("train", "val")}
    values = {"source": "auto", "files": {"paths": paths}, "workers": 2}
    places = {"output": tmp_path / "corpus", "report": tmp_path / "report.json"}
    found = prepare.run(PrepareSettings.model_validate(values | places)).results
    assert {split: n["images"] for split, n in found["splits"].items()} == {"train": 50, "val": 104}


def test_shards_with_a_holdout(real_data, tmp_path):
    """Three real shards: photographs go into the corpus, packed."""
    files = {"paths": str(real_data / "formats/webdataset/flickr8k_derived_*.tar")}
    places = {"output": tmp_path / "corpus", "report": tmp_path / "report.json"}
    prepare.run(PrepareSettings.model_validate({"source": "auto", "files": files} | places))
    corpus = Corpus(tmp_path / "corpus")
    assert (len(corpus.images), len(corpus.captions), len(corpus.positives)) == (48, 240, 240)
    assert corpus.original(47).content[:2] == b"\xff\xd8"
