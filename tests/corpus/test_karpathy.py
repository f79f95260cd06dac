"""Karpathy's split JSON, whole and spoilt."""

import pytest

from cprd_pipeline.corpus.intake import Intake
from cprd_pipeline.errors import CorpusError


def read(dataset, **settings):
    """Save the data set and read it."""
    return Intake(dataset.save(**settings)).read().records


def test_flickr_entries(dataset):
    """Without a COCO id the path is the id; the raw text stays as it is; captions belong to their image."""
    dataset.entries[1]["sentences"][0]["raw"] = "  A dog , running .\n"
    records = read(dataset)
    assert [(i.image_id, i.path, i.split) for i in records.images[1:3]] == [("1.png", "1.png", "train"), ("2.png", "2.png", "val")]
    caption = records.captions[2]
    assert (caption.caption_id, caption.text, caption.image_ids) == ("2", "  A dog , running .\n", ("1.png",))
    assert len(records.captions) == 12
    assert records.image_root == dataset.images


def test_coco_entries(dataset):
    """The COCO id is the id, `filepath` a folder; the same name in two folders is two images."""
    for number, entry in enumerate(dataset.entries):
        entry |= {"filepath": f"set{number % 2}", "cocoid": 100 + number, "filename": "same.jpg"}
    records = read(dataset)
    assert [(i.image_id, i.path) for i in records.images[:2]] == [("100", "set0/same.jpg"), ("101", "set1/same.jpg")]


@pytest.mark.parametrize(("names", "split"), [({"restval": "train"}, "train"), ({}, "restval"), ({"restval": "dev"}, "dev")])
def test_restval(dataset, names, split):
    """COCO's restval is training data by setting."""
    dataset.entries[0]["split"] = "restval"
    assert read(dataset, files={"rename_splits": names}).images[0].split == split
    assert read(dataset).images[0].split == "train"


def test_without_splits_all_is_train(dataset):
    """A file that names no split at all."""
    for entry in dataset.entries:
        del entry["split"]
    records = read(dataset)
    assert {image.split for image in records.images} == {"train"}
    assert not records.splits_given


def test_a_limit_takes_the_first_of_each_split(dataset):
    """Three of the four train images and one of the two val images stay out, with their captions."""
    records = read(dataset, max_images=1)
    assert [(image.image_id, image.split) for image in records.images] == [("0.png", "train"), ("2.png", "val")]
    assert {caption.image_ids for caption in records.captions} == {("0.png",), ("2.png",)}


@pytest.mark.parametrize("path", [("..", "0.png"), ("", "/etc/passwd"), ("a/../..", "0.png")])
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
        (("set", "split", "a/b"), r"images\[4\]: split is 'a/b'; expected letters.*files\.rename_splits"),
        (("drop", "sentences"), r"images\[4\]: sentences is missing; expected a list"),
        (("set", "filename", 7), r"filename is '7'"),
        (("set", "filename", " "), r"filename is empty"),
        (("set", "filename", "0.png"), r"images\[4\]: image id '0\.png' occurs more than once; expected every id once"),
        (("set", "filename", "a\0b"), r"images\[4\]: 'a\\x00b' holds a control character; expected a name on one line"),
        (("set", "cocoid", "4\n5"), r"images\[4\]: '4\\n5' holds a control character"),
        (("set", "filename", "a\ud800"), r"images\[4\]: .* holds half of a surrogate pair"),
        (("set", "cocoid", [1]), r"cocoid is '\[1\]'; expected a number"),
        (("set", "sentences", "a dog"), r"sentences is 'a dog'; expected a list"),
        (("set", "sentences", []), r"1 images have no caption, the first is 4\.png.*files\.unpaired: keep"),
        (("sentence", {"raw": "a dog"}), r"images\[4\]\.sentences\[1\]: sentid is missing"),
        (("sentence", {"sentid": 9}), r"images\[4\]\.sentences\[1\]: raw is missing"),
        (("sentence", {"sentid": True, "raw": "a"}), r"sentid is 'True'"),
        (("sentence", {"sentid": 0, "raw": "a"}), r"images\[4\]\.sentences\[1\]: caption id '0' occurs more than once"),
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
        (b'{"images": [', r"dataset\.json: not valid JSON at line 1, column 13"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"images": [' + b"9" * 5000 + b"]}", r"not valid JSON \(ValueError\)"),
        (b"[]", "no list `images`"),
        (b'{"images": []}', "at least one entry"),
        (b'{"images": {}}', "no list `images`"),
        (b'{"images": [{"id": 1}]}', "its images hold no `sentences`; expected Karpathy's split JSON; check files.paths"),
    ],
)
def test_files_that_are_no_split_file(dataset, content, message):
    """What was found says what to do."""
    settings = dataset.save()
    dataset.annotations.write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        Intake(settings).read()
