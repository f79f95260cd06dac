"""What holds for every source format alike."""

import json
import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cprd_pipeline.corpus import prepare
from cprd_pipeline.corpus.formats.recognition import FORMATS as READERS
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.corpus.settings import PrepareSettings
from cprd_pipeline.errors import CorpusError, CprdError
from cprd_pipeline.store.fingerprint import bytes_digest
from tests.corpus.conftest import picture
from tests.corpus.made_sources import FORMATS, TEXTS, read, save_pictures, texts_of

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def test_every_reader_has_a_made_source():
    """So that the tests below reach them all."""
    assert {reader.name for reader in READERS} == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_content_in_every_format(tmp_path, name):
    """Recognised and named, the same pictures with the same captions come out."""
    path = FORMATS[name](tmp_path)
    records = read(path)
    assert Counter(map(tuple, texts_of(records).values())) == Counter(map(tuple, TEXTS.values()))
    assert records == read(path, name)
    assert len({caption.caption_id for caption in records.captions}) == 12
    assert {image.split for image in records.images} == {"train"}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_becomes_the_same_corpus(tmp_path, name):
    """Digests of pictures and texts, and positives, do not depend on where they were read from."""
    save_pictures(tmp_path)
    places = {"output": tmp_path / "corpus", "report": tmp_path / "report.json"}
    settings = PrepareSettings.model_validate({"source": "auto", "files": {"paths": FORMATS[name](tmp_path)}} | places)
    assert prepare.run(settings).results["positives"] == 12
    corpus = Corpus(settings.output)
    assert {d.tobytes() for d in corpus.images.digests} == {bytes_digest(picture(n)) for n in range(6)}
    pairs = {(corpus.images.digests[image].tobytes(), corpus.texts[caption]) for image, caption in corpus.positives}
    assert pairs == {(bytes_digest(picture(n)), text) for n, name in enumerate(TEXTS) for text in TEXTS[name]}
    assert prepare.run(settings).up_to_date


@pytest.mark.parametrize("name", ["karpathy", "coco_captions", "flickr_tokens", "flickr30k_results", "csv", "jsonl", "folder"])
def test_texts_stay_as_they_are(tmp_path, name):
    """Right-to-left, CJK compatibility forms, emoji, combining marks and odd spaces, byte for byte."""
    text = "كلبٌ أسود 🐕‍🦺 \u200f豈 e\u0301 \u00a0\u2028x"
    path = FORMATS[name](tmp_path)
    old = json.dumps(TEXTS["3.png"][1]) if path.suffix in (".json", ".jsonl") else TEXTS["3.png"][1]
    new = json.dumps(text) if path.suffix in (".json", ".jsonl") else text
    file = path / "3.txt" if path.is_dir() else path
    content = file.read_bytes()
    assert old.encode() in content
    file.write_bytes(content.replace(old.encode(), new.encode()))
    assert [c.text for c in read(path).captions].count(text) == 1


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("datasets", "folder")])
def test_files_that_are_not_there(tmp_path, name):
    """Missing, empty and Git LFS pointers are told before any format is tried."""
    path = FORMATS[name](tmp_path)
    path.write_bytes(LFS)
    with pytest.raises(CorpusError, match=rf"{path.name}: a Git LFS pointer, not the annotations.*git lfs pull"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(CorpusError, match=rf"{path.name}: the file is empty.*fetch the file again"):
        read(path, name)
    path.unlink()
    with pytest.raises(CorpusError, match=rf"{path.name}: No such file.*mend files\.paths"):
        read(path, name)


@pytest.mark.parametrize("name", ["karpathy", "coco_captions", "flickr_tokens", "flickr30k_results", "csv", "jsonl"])
def test_sixteen_kilobytes_of_ff(tmp_path, name):
    """The line is named, and how long the damage is."""
    path = FORMATS[name](tmp_path)
    content = path.read_bytes()
    cut = content.rindex(b"picture 4")
    path.write_bytes(content[:cut] + b"\xff" * 16384 + content[cut:])
    line = content[:cut].count(b"\n") + 1
    with pytest.raises(CorpusError, match=rf"{path.name}: line {line} is not UTF-8 \(16,384 bytes of 0xFF\).*iconv"):
        read(path, name)
    path.write_bytes(content.replace(b"picture 0", b"Stra\xdfe"))
    for source in (name, "auto"):
        with pytest.raises(
            CorpusError, match=r"is not UTF-8 \(byte 0xDF\).*; convert it to UTF-8 \(for example iconv -f LATIN1 -t"
        ):
            read(path, source)
    path.write_bytes(content.decode().encode("utf-16"))
    for source in (name, "auto"):
        with pytest.raises(CorpusError, match=r"; convert it to UTF-8 \(for example iconv -f UTF-16 -t UTF-8\)"):
            read(path, source)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    """Windows programs put one before the header."""
    path = FORMATS["csv"](tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read(path).images) == 6


def test_an_unknown_format_lists_what_was_tried(tmp_path):
    """Each format with its own reason; equal reasons are told once."""
    path = tmp_path / "notes.md"
    path.write_text("# Notes\nNothing here.\n")
    with pytest.raises(CorpusError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(reader.name in message for reader in READERS)
    assert "karpathy, coco_captions: not valid JSON at line 1, column 1" in message
    assert message.endswith("; name the format with `source` and a table's columns with `files.columns`, or mend files.paths")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"folder: no image with a \.txt of the same name beside it"):
        read(tmp_path / "empty")
    path.write_bytes(b"\x1f\x8b" + b"x" * 600)
    with pytest.raises(CorpusError, match=r"webdataset: compressed \(gunzip"):
        read(path)


def test_paths_by_split_pattern_and_list(tmp_path):
    """A mapping names the split of all that its files hold; a pattern is every file that matches, in order."""
    for number in range(3):
        (tmp_path / f"{number}.csv").write_text(f"image,caption\n{number}.png,text {number}\n")
    records = read({"train": [tmp_path / "0.csv", tmp_path / "1.csv"], "val": tmp_path / "2.csv"})
    assert [(image.image_id, image.split) for image in records.images] == [("0.png", "train"), ("1.png", "train"), ("2.png", "val")]
    assert records.splits_given
    assert [image.image_id for image in read(tmp_path / "*.csv").images] == ["0.png", "1.png", "2.png"]
    with pytest.raises(CorpusError, match=r"\*\.tsv: matches no file.*mend files\.paths"):
        read(tmp_path / "*.tsv")


def test_an_image_in_two_splits(tmp_path):
    """By two files, or by two rows."""
    for split in ("train", "val"):
        (tmp_path / f"{split}.csv").write_text("image,caption\n0.png,a dog\n")
    with pytest.raises(CorpusError, match=r"val\.csv: line 2: image 0\.png is of split val, and of train in an earlier entry"):
        read({split: tmp_path / f"{split}.csv" for split in ("train", "val")})


@pytest.mark.parametrize("path", ["../0.png", "/etc/passwd", "a/../../b.png", "https://example.org/0.png", "."])
def test_paths_that_leave_the_folder(tmp_path, path):
    """Refused before any file is touched; an absolute path inside the folder is taken."""
    (tmp_path / "made.csv").write_text(f"image,caption\n{tmp_path}/0.png,a dog\n{path},a cat\n")
    with pytest.raises(CorpusError, match=r"line 3: path '.*' (leaves the image folder|is an address)"):
        read(tmp_path / "made.csv")
    (tmp_path / "made.csv").write_text(f"image,caption\n{tmp_path}/0.png,a dog\n")
    assert read(tmp_path / "made.csv").images[0].path == "0.png"


def test_a_missing_image_folder(tmp_path):
    """Told once, not per image."""
    with pytest.raises(CorpusError, match=r"nowhere: no such folder.*mend files\.images"):
        read(FORMATS["csv"](tmp_path), images=str(tmp_path / "nowhere"))


def test_annotations_beside_the_image_folders(tmp_path):
    """COCO unpacks annotations/ beside val2017/: without files.images the folder around is taken."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    assert read(FORMATS["coco_captions"](tmp_path / "annotations")).image_root == tmp_path


TEXTUAL = [name for name in FORMATS if name not in ("datasets", "folder", "parquet")]
BINARY = ["parquet", "datasets"]
MUTATIONS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(["flip", "cut", "repeat", "insert"]), st.binary(max_size=9)),
    min_size=1,
    max_size=6,
)


def mutate(content: bytes, mutations: list) -> bytes:
    """Spoil bytes in some places."""
    for place, kind, extra in mutations:
        at = int(place * len(content))
        match kind:
            case "flip":
                content = content[:at] + extra + content[at + len(extra) :]
            case "cut":
                content = content[:at] + content[at + 17 :]
            case "repeat":
                content = content[:at] + content[at : at + 40] * 2 + content[at + 40 :]
            case "insert":
                content = content[:at] + extra + content[at:]
    return content


def read_spoilt(folder, name, mutations):
    """Read spoilt bytes; only our own error may come out. Stored images are read too."""
    path = FORMATS[name](folder)
    file = next(path.glob("*.arrow")) if path.is_dir() else path
    file.write_bytes(mutate(file.read_bytes(), mutations))
    message = ""
    try:
        for image in read(path, name).images:
            assert image.content is None or isinstance(image.content, bytes)
    except CprdError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize(("name", "examples"), [*((name, 60) for name in TEXTUAL), *((name, 40) for name in BINARY)])
def test_spoilt_files_raise_only_our_own_error(tmp_path_factory, name, examples):
    """Whatever bytes are flipped, cut, doubled or put in."""

    @settings(deadline=None, max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    @given(MUTATIONS)
    def fuzz(mutations):
        read_spoilt(tmp_path_factory.mktemp("spoilt"), name, mutations)

    fuzz()


@settings(deadline=None, max_examples=60)
@given(content=st.binary(max_size=400))
def test_any_bytes_raise_only_our_own_error(tmp_path_factory, content):
    """Recognition itself never breaks."""
    path = tmp_path_factory.getbasetemp() / f"any-{os.getpid()}"
    path.write_bytes(content)
    with pytest.raises(CprdError):
        read(path)
