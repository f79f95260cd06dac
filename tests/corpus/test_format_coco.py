"""COCO's captions JSON: where its images lie, and what is wrong with an entry."""

import json

import pytest

from cprd_pipeline.errors import CorpusError
from tests.corpus.made_sources import coco, read


def spoilt(folder, change):
    """The made file with its content changed."""
    path = coco(folder)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def test_ids_are_those_of_the_file(tmp_path):
    """Of images and of captions: what other files of COCO refer to."""
    records = read(coco(tmp_path))
    assert records.images[3].image_id == "3"
    assert (records.captions[7].caption_id, records.captions[7].image_ids) == ("7", ("3",))


@pytest.mark.parametrize(
    ("name", "url", "folder", "found"),
    [
        ("0.png", "http://images.cocodataset.org/val2017/0.png", "val2017", "val2017/0.png"),
        ("COCO_train2014_0.png", None, "train2014", "train2014/COCO_train2014_0.png"),
        ("0.png", "http://images.cocodataset.org/val2017/0.png", "train2017", "0.png"),
        ("val2017/0.png", "http://images.cocodataset.org/val2017/0.png", "val2017", "val2017/0.png"),
        ("0.png", "http://example.org/..%2f/0.png", "val2017", "0.png"),
    ],
)
def test_the_folder_of_an_archive_is_added_where_it_is(tmp_path, name, url, folder, found):
    """COCO's file names lack it."""
    (tmp_path / folder).mkdir()
    path = spoilt(tmp_path, lambda content: content["images"][0].update({"file_name": name, "coco_url": url}))
    assert read(path).images[0].path == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][2].pop("id"), r"images\[2\]: id is missing; expected a number"),
        (lambda c: c["images"][2].update(id=1), r"images\[2\]: image id '1' occurs more than once"),
        (lambda c: c["images"][2].pop("file_name"), r"images\[2\]: file_name is missing"),
        (lambda c: c["images"][2].update(file_name="../2.png"), r"images\[2\]: path '../2\.png' leaves the image folder"),
        (lambda c: c["annotations"][5].update(image_id=77), r"annotations\[5\]: image_id 77 is in no list `images`.*remove this"),
        (lambda c: c["annotations"][5].pop("caption"), r"annotations\[5\]: caption is missing; expected text"),
        (lambda c: c["annotations"][5].update(id=2), r"annotations\[5\]: caption id '2' occurs more than once"),
        (lambda c: [a.pop("caption") for a in c["annotations"]], r"its annotations hold no `caption` \(instances or keypoints\?\)"),
        (lambda c: c.update(annotations=[]), r"no lists `images` and `annotations` with at least one entry each"),
        (lambda c: c.update(images=5), r"no lists `images` and `annotations`"),
    ],
)
def test_spoilt_entries_are_named(tmp_path, change, message):
    """The message says which entry and what was expected."""
    with pytest.raises(CorpusError, match=message):
        read(spoilt(tmp_path, change), "coco_captions")


def test_instances_are_not_taken_for_captions(tmp_path):
    """The reason stands in the list of what was tried."""
    path = spoilt(tmp_path, lambda content: [a.pop("caption") for a in content["annotations"]])
    with pytest.raises(CorpusError, match=r"of no format that is known.*coco_captions: its annotations hold no `caption`"):
        read(path)
