"""Packed images: the same bytes by row, from any process; whole shards survive a kill; damage is named."""

import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cprd_pipeline.corpus import packing
from cprd_pipeline.corpus.formats.records import ImageRecord
from cprd_pipeline.corpus.images import ImageReader, decode_image
from cprd_pipeline.corpus.packing import PackedImages, pack_images
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter
from tests.corpus.conftest import picture
from tests.tiny_encoders import write_corpus

COUNT = 23


class Files:
    """Image files in a folder, and an output that they are packed into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "images"
        self.root.mkdir()
        self.contents = [picture(row, size=(4 + row, 9)) for row in range(COUNT)]
        for row, content in enumerate(self.contents):
            (self.root / f"{row}.png").write_bytes(content)
        self.records = [ImageRecord(f"id {row}", "train", f"{row}.png") for row in range(COUNT)]
        self.digests = [bytes_digest(content) for content in self.contents]

    def writer(self, name: str = "packed-corpus") -> OutputWriter:
        """Of the output; the name is part of its identity."""
        return OutputWriter(self.folder / name, "corpus", {"name": name}, {})

    def pack(self, writer: OutputWriter, workers: int = 0) -> InputFolder:
        """Pack all of them and finish."""
        pack_images(self.records, self.digests, self.root, writer, workers)
        writer.finish()
        return InputFolder(writer.target, "corpus")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """23 files; shards of seven images, row groups of about two."""
    monkeypatch.setattr(packing, "SHARD_IMAGES", 7)
    monkeypatch.setattr(packing, "GROUP_BYTES", 1000)
    return Files(tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_row_is_found_in_any_order(files, workers):
    """What comes out is what was in the file, with two handles open or few."""
    packed = PackedImages(files.pack(files.writer(), workers))
    assert len(packed) == COUNT
    for row in np.random.default_rng(0).integers(0, COUNT, 80):
        assert packed[int(row)].read() == files.contents[row]


def test_shards_are_small_row_groups_and_whole_counts(files):
    """One image at random costs one group; a group ends with the image that fills it."""
    folder = files.pack(files.writer())
    assert [(part.name, part.rows) for part in folder.manifest.parts] == [
        (f"packed/{number:05d}.parquet", rows) for number, rows in enumerate([7, 7, 7, 2])
    ]
    for number in range(4):
        file = pq.ParquetFile(folder.part_path(f"packed/{number:05d}.parquet"))
        groups = [file.read_row_group(group)["bytes"].to_pylist() for group in range(file.num_row_groups)]
        assert list(chain(*groups)) == files.contents[7 * number : 7 * number + 7]
        assert all(sum(map(len, group[:-1])) < 1000 for group in groups)
        assert all(sum(map(len, group)) >= 1000 for group in groups[:-1])


def test_a_killed_run_packs_only_what_is_missing(files):
    """Finished shards are not read again; the result is the same bytes."""
    writer = files.writer()
    (files.root / "16.png").rename(files.root / "away")
    with pytest.raises(CorpusError, match=r"image id 16: .*16\.png: No such file"):
        pack_images(files.records, files.digests, files.root, writer, 0)
    (files.root / "away").rename(files.root / "16.png")
    for row in range(14):
        (files.root / f"{row}.png").unlink()
    again = files.writer()
    assert again.has("packed/00001.parquet")
    assert not again.has("packed/00002.parquet")
    resumed = files.pack(again)
    for row in range(14):
        (files.root / f"{row}.png").write_bytes(files.contents[row])
    assert files.pack(files.writer("other")).manifest.parts == resumed.manifest.parts


def test_shards_of_a_killed_run_that_hold_other_images_are_made_again(files):
    """An image that was bad then and is good now moves all later ones by a row."""
    broken = slice(3, 4)
    records, digests = files.records[:], files.digests[:]
    del files.records[broken], files.digests[broken]
    (files.root / "22.png").unlink()
    with pytest.raises(CorpusError, match=r"image id 22"):
        files.pack(files.writer())
    (files.root / "22.png").write_bytes(files.contents[22])
    files.records, files.digests = records, digests
    packed = PackedImages(files.pack(files.writer()))
    assert [packed[row].read() for row in range(COUNT)] == files.contents


def test_a_file_that_changed_before_it_was_packed_is_refused(files):
    """The digest in images.parquet would be another picture's."""
    (files.root / "3.png").write_bytes(picture(99))
    with pytest.raises(
        CorpusError, match=r"image id 3: its bytes changed since the corpus was prepared; run `cprd-pipeline prepare`"
    ):
        pack_images(files.records, files.digests, files.root, files.writer(), 0)


def test_images_larger_than_a_row_group(tmp_path, monkeypatch):
    """Each is a group by itself."""
    monkeypatch.setattr(packing, "GROUP_BYTES", 10)
    files = Files(tmp_path)
    packed = PackedImages(files.pack(files.writer()))
    assert [packed[row].read() for row in range(COUNT)] == files.contents


def test_damaged_shards_are_named(files):
    """Cut off, gone, or with fewer rows than the manifest says."""
    folder = files.pack(files.writer())
    packed = PackedImages(folder)
    shards = [folder.path / f"packed/{number:05d}.parquet" for number in range(4)]
    shards[0].write_bytes(shards[0].read_bytes()[:500])
    shards[1].unlink()
    shutil.copy(shards[3], shards[2])
    for row, reason in ((0, "0.parquet: "), (8, "1.parquet: .*No such file"), (20, "2.parquet: 6 is past the last row")):
        with pytest.raises(
            CorpusError, match=rf"packed/0000{reason}.*expected the shard as it was packed; prepare the corpus again"
        ):
            packed[row].read()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corpus_serves_packed_pictures_without_their_files(files, workers):
    """In order, repeated and shuffled, decoded in worker processes; its files may be gone."""
    corpus = packed_corpus(files)
    shutil.rmtree(files.root)
    rows = np.random.default_rng(1).integers(0, COUNT, 50)
    with ImageReader(corpus, workers) as reader:
        for row, image in zip(rows, reader.prepared(rows), strict=True):
            assert np.array_equal(image, decode_image(files.contents[row]))


def test_a_row_that_holds_another_picture_is_refused(files):
    """The digest of the table decides, as for files."""
    corpus = packed_corpus(files)
    shards = [corpus.path / f"packed/{number:05d}.parquet" for number in (0, 1)]
    shutil.copy(shards[1], shards[0])
    with ImageReader(corpus) as reader, pytest.raises(CorpusError, match=r"image id 2: its bytes changed since"):
        reader.read(2)


def packed_corpus(files: Files) -> Corpus:
    """A corpus whose images.parquet holds other bytes than the shards: whoever read them would be caught."""
    images = [(record.image_id, content, "train") for record, content in zip(files.records, files.contents, strict=True)]
    plain = write_corpus(files.folder / "plain", images, [("c", "text", "train")], [("id 0", "c")])
    writer = files.writer()
    table = pq.read_table(plain / "images.parquet")
    writer.write_table("images.parquet", table.set_column(2, table.schema.field("bytes"), [[b"wrong"] * COUNT]))
    for name in ("captions.parquet", "positives.parquet"):
        writer.write_table(name, pq.read_table(plain / name))
    writer.settings["image_root"] = "."
    files.pack(writer)
    return Corpus(writer.target)
