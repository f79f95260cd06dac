"""Tar shards, and folders of images with text files."""

import json

import pytest

from cprd_pipeline.corpus.formats.tar_shards import TarMember
from cprd_pipeline.errors import CorpusError
from tests.corpus.conftest import picture
from tests.corpus.made_sources import NAMES, folder_of_images, read, shard, texts_of


def test_where_captions_come_from(tmp_path):
    """A list in the JSON goes before text files, which go before the JSON's single caption; keys may lie in folders."""
    members = {
        "a/0.jpg": b"0",
        "a/0.txt": b"first of many",
        "a/0.json": json.dumps({"caption": "c", "captions": ["x", "y"], "split": "val"}).encode(),
        "b.png": b"1",
        "b.txt": "ein Hund läuft".encode(),
        "b.json": b'{"caption": "c", "split": "train"}',
        "c.webp": b"2",
        "c.json": b'{"caption": "c", "image": "kept out", "split": "train"}',
        "d.jpg": b"3",
        "d.10.txt": b"last",
        "d.2.txt": b"first",
        "d.json": b'{"split": "train"}',
        "d.cls": b"3",
    }
    records = read(shard(tmp_path, members))
    assert texts_of(records) == {"a/0": ["x", "y"], "b": ["ein Hund läuft"], "c": ["c"], "d": ["first", "last"]}
    assert [image.split for image in records.images] == ["val", "train", "train", "train"]
    assert [image.content for image in records.images] == [b"0", b"1", b"2", b"3"]
    assert [note.split(": ", 1)[1] for note in records.notes] == ["members .cls are neither images nor captions"]


def test_columns_of_the_json(tmp_path):
    """Named in the settings; a folder of shards is read in order."""
    for name in ("1", "0"):
        shard(tmp_path, {f"{name}.jpg": b"x", f"{name}.json": json.dumps({"uid": f"u{name}", "alt": "a"}).encode()}, f"{name}.tar")
    columns = {"caption": "alt", "image_id": "uid"}
    assert texts_of(read(tmp_path, columns=columns)) == {"u0": ["a"], "u1": ["a"]}
    with pytest.raises(CorpusError, match=r"0\.tar: 0: no column 'alt2'; expected one of 'uid', 'alt'"):
        read(tmp_path, columns={"caption": "alt2"})


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": b"0", "a.png": b"1"}, r"00000\.tar: a has two images; expected one image a key"),
        ({"a.jpg": b"0", "a.json": b"{"}, r"a\.json: not valid JSON"),
        ({"a.jpg": b"0", "a.json": b"[]"}, r"a\.json: no JSON object"),
        ({"a.jpg": b"0", "a.txt": b"\xff"}, r"a\.txt: not UTF-8"),
        ({"a.txt": b"alone"}, r"00000\.tar: a: image is empty"),
        ({"a.jpg": b"0", "b.jpg": b"1", "a.JPG": b"2"}, r"image id 'a' occurs more than once"),
        ({"a.jpg": b"0", "a.json": b'{"captions": ["x", 5]}'}, r"00000\.tar: a: captions is '5'"),
    ],
)
def test_spoilt_samples(tmp_path, members, message):
    """The shard and the key are named."""
    with pytest.raises(CorpusError, match=message):
        read(shard(tmp_path, members))


def test_damaged_shards(tmp_path):
    """Cut off, compressed, no tar file at all; and one that vanished after it was read."""
    path = shard(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(CorpusError, match=r"00000\.tar: ends inside 0\.png; fetch the shard again"):
        read(path)
    path.write_bytes(b"\x1f\x8b" + whole)
    with pytest.raises(CorpusError, match=r"no whole tar file \(ReadError.*decompress it"):
        read(path, "webdataset")
    path.write_bytes(whole)
    image = read(path).images[5].stored
    assert isinstance(image, TarMember)
    assert image.read() == picture(5)
    path.write_bytes(whole[: image.offset + 10])
    with pytest.raises(CorpusError, match="ends inside an image"):
        image.read()
    path.unlink()
    with pytest.raises(CorpusError, match=r"00000\.tar: No such file"):
        image.read()


def test_a_folder_of_images(tmp_path):
    """Folders inside too, hidden ones not; empty lines are no captions; the name's last ending alone is cut off."""
    home = folder_of_images(tmp_path)
    (home / "inner").mkdir()
    (home / "inner" / "my.photo.JPG").write_bytes(b"x")
    (home / "inner" / "my.photo.txt").write_bytes(b"\nein Hund\r\n\n")
    (home / ".hidden").mkdir()
    (home / ".hidden" / "0.jpg").write_bytes(b"x")
    (home / "notes.md").write_text("not a caption")
    records = read(home)
    assert [image.path for image in records.images] == [*NAMES, "inner/my.photo.JPG"]
    assert (records.captions[-1].caption_id, records.captions[-1].text) == ("inner/my.photo.JPG#0", "ein Hund")


def test_folders_by_split(tmp_path):
    """Paths are relative to what the folders have in common."""
    homes = {split: folder_of_images(tmp_path / split) for split in ("train", "val") if (tmp_path / split).mkdir() is None}
    records = read(homes)
    assert records.image_root == tmp_path
    assert [(image.path, image.split) for image in (records.images[0], records.images[6])] == [
        ("train/pictures/0.png", "train"),
        ("val/pictures/0.png", "val"),
    ]


def test_what_a_folder_must_not_hold(tmp_path):
    """A text for no image, one text for two images, images elsewhere."""
    home = folder_of_images(tmp_path)
    (home / "README.txt").write_text("hello")
    with pytest.raises(CorpusError, match=r"README\.txt: no image of that name beside it.*unpaired: keep"):
        read(home)
    assert [(c.text, c.image_ids) for c in read(home, unpaired="keep").captions][-1] == ("hello", ())
    (home / "0.jpg").write_bytes(b"x")
    with pytest.raises(CorpusError, match=r"0\.txt: stands beside two images; expected one image a text file"):
        read(home)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(CorpusError, match=r"lies outside of .*elsewhere.*set files\.images to null"):
        read(home, images=str(tmp_path / "elsewhere"))
    with pytest.raises(CorpusError, match=r"memory://x: an address"):
        read(home, images="memory://x")
    with pytest.raises(CorpusError, match=r"0\.txt: not a folder"):
        read(home / "0.txt", "folder")


def test_an_empty_text_file_is_an_empty_caption(tmp_path):
    """Which `bad_captions` then decides about."""
    home = folder_of_images(tmp_path)
    (home / "3.txt").write_text("")
    assert texts_of(read(home))["3.png"] == [""]
