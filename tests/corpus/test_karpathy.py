"""Karpathy's split JSON, whole and spoilt."""

import json

import pytest

from cprd_pipeline.corpus.formats.karpathy import read_annotations, read_karpathy
from cprd_pipeline.corpus.settings import KarpathySettings
from cprd_pipeline.errors import CorpusError


def read(dataset, **settings):
    """Save the data set and read it."""
    made = dataset.save(**settings)
    return read_karpathy(read_annotations(made.karpathy.annotations), made.karpathy, made.max_images)


def test_flickr_entries(dataset):
    """Without a COCO id the path is the id; the raw text stays as it is; captions belong to their image."""
    dataset.entries[1]["sentences"][0]["raw"] = "  A dog , running .\n"
    records = read(dataset)
    assert [(i.image_id, i.path, i.split) for i in records.images[1:3]] == [("1.png", "1.png", "train"), ("2.png", "2.png", "val")]
    caption = records.captions[2]
    assert (caption.caption_id, caption.text, caption.image_id) == ("2", "  A dog , running .\n", "1.png")
    assert len(records.captions) == 12
    assert records.image_root == dataset.images


def test_coco_entries(dataset):
    """The COCO id is the id, `filepath` a folder; the same name in two folders is two images."""
    for number, entry in enumerate(dataset.entries):
        entry |= {"filepath": f"set{number % 2}", "cocoid": 100 + number, "filename": "same.jpg"}
    records = read(dataset)
    assert [(i.image_id, i.path) for i in records.images[:2]] == [("100", "set0/same.jpg"), ("101", "set1/same.jpg")]


@pytest.mark.parametrize(("as_train", "split"), [(True, "train"), (False, "restval")])
def test_restval(dataset, as_train, split):
    """COCO's restval is training data by setting."""
    dataset.entries[0]["split"] = "restval"
    assert read(dataset, karpathy={"restval_as_train": as_train}).images[0].split == split


def test_without_splits_all_is_train(dataset):
    """A file that names no split at all."""
    for entry in dataset.entries:
        del entry["split"]
    assert {image.split for image in read(dataset).images} == {"train"}


def test_a_limit_takes_the_first_of_each_split(dataset):
    """Three of the four train images and one of the two val images stay out, with their captions."""
    records = read(dataset, max_images=1)
    assert [(image.image_id, image.split) for image in records.images] == [("0.png", "train"), ("2.png", "val")]
    assert {caption.image_id for caption in records.captions} == {"0.png", "2.png"}


@pytest.mark.parametrize("path", [("..", "0.png"), ("", "/etc/passwd"), ("a/../..", "0.png"), ("", "a\0b")])
def test_paths_that_leave_the_folder_are_refused(dataset, path):
    """Before any file is touched."""
    dataset.entries[3] |= {"filepath": path[0], "filename": path[1]}
    with pytest.raises(CorpusError, match=r"images\[3\]: path .* leaves the image folder"):
        read(dataset)


def spoil(entry, change):
    """Apply one change to an entry."""
    match change:
        case ("drop", key):
            del entry[key]
        case ("set", key, value):
            entry[key] = value
        case ("sentence", value):
            entry["sentences"][1] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("drop", "filename"), r"images\[4\]: filename is missing; expected text"),
        (("drop", "split"), r"images\[4\]: split is missing"),
        (("drop", "sentences"), r"images\[4\]: sentences is missing; expected a list"),
        (("set", "filename", 7), r"filename is '7'"),
        (("set", "filename", " "), r"filename is empty"),
        (("set", "filename", "0.png"), r"1 image ids occur more than once, '0\.png' 2 times"),
        (("set", "cocoid", [1]), r"cocoid is '\[1\]'; expected a number"),
        (("set", "sentences", "a dog"), r"sentences is 'a dog'; expected a list"),
        (("sentence", {"raw": "a dog"}), r"images\[4\]\.sentences\[1\]: sentid is missing"),
        (("sentence", {"sentid": 9}), r"images\[4\]\.sentences\[1\]: raw is missing"),
        (("sentence", {"sentid": 9, "raw": " \n"}), r"images\[4\]\.sentences\[1\]: raw is empty"),
        (("sentence", {"sentid": 9, "raw": "a \ud800"}), r"sentences\[1\]: raw holds half of a surrogate"),
        (("sentence", {"sentid": True, "raw": "a"}), r"sentid is 'True'"),
        (("sentence", {"sentid": 0, "raw": "a"}), r"1 sentence ids occur more than once, '0' 2 times"),
        (("sentence", "a dog"), r"sentences\[1\]: sentid is missing"),
    ],
)
def test_spoilt_entries_are_named(dataset, change, message):
    """The message says which entry and what was expected."""
    spoil(dataset.entries[4], change)
    with pytest.raises(CorpusError, match=message):
        read(dataset)


def test_an_entry_that_is_no_object(dataset):
    """A stray number among the images."""
    dataset.entries[4] = 5
    with pytest.raises(CorpusError, match=r"images\[4\]: split is missing"):
        read(dataset)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [', "not valid JSON at line 1, column 13"),
        (b"\xff\xfe\xfa", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "no list `images`"),
        (b'{"images": []}', "at least one entry"),
        (b'{"images": {}}', "no list `images`"),
    ],
)
def test_files_that_are_no_split_file(dataset, content, message):
    """What was found says what to do."""
    with pytest.raises(CorpusError, match=message):
        read_karpathy(content, dataset.settings().karpathy)


def test_a_missing_file_and_a_git_lfs_pointer(dataset):
    """The usual two reasons why there are no annotations."""
    with pytest.raises(CorpusError, match=r"dataset\.json: No such file.*mend karpathy\.annotations"):
        read_annotations(dataset.annotations)
    dataset.annotations.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(CorpusError, match=r"a Git LFS pointer.*git lfs pull"):
        read_annotations(dataset.annotations)


def test_a_missing_image_folder(dataset):
    """Told once, not per image."""
    with pytest.raises(CorpusError, match=r"nowhere: no such folder.*mend karpathy\.images"):
        read(dataset, karpathy={"images": dataset.folder / "nowhere"})


def test_real_records(real_data, tmp_path):
    """The published records of Flickr8k and COCO parse, and a real LFS pointer is named."""
    for name, image_id, captions in (("flickr8k", "2513260012_03d33305cf.jpg", 5), ("coco", "391895", 5)):
        path = real_data / "formats" / "karpathy" / f"dataset_{name}.excerpt.json"
        settings = {"annotations": path, "images": tmp_path}
        records = read_karpathy(read_annotations(path), KarpathySettings(**settings))
        assert records.images[0].image_id == image_id
        assert sum(caption.image_id == image_id for caption in records.captions) == captions
    with pytest.raises(CorpusError, match="Git LFS pointer"):
        read_annotations(real_data / "formats" / "damaged" / "dataset_coco.json")


def test_other_keys_do_not_matter(dataset):
    """Tokens, licences and whatever else the file has."""
    dataset.entries[0]["licence"] = {"id": 3}
    assert len(read(dataset).images) == len(json.loads(dataset.annotations.read_text())["images"])
