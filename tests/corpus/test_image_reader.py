"""Reading a corpus' pictures: in order, checked, inside the root, with and without workers."""

from multiprocessing.context import ForkServerContext

import numpy as np
import pyarrow as pa
import pytest

from cprd_pipeline.corpus.images import ImageReader, as_it_is, decode_image
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.corpus.workers import Workers
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import CAPTIONS, IMAGES, POSITIVES
from tests.corpus.conftest import picture
from tests.tiny_encoders import random_image, simple_corpus


@pytest.fixture
def images(tmp_path):
    """A folder of six files."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(picture(number))
    return folder


@pytest.fixture
def corpus(images):
    """A corpus of them."""
    names = [f"{number}.png" for number in range(6)]
    digests = [bytes_digest((images / name).read_bytes()) for name in names]
    writer = OutputWriter(images.parent / "corpus", "corpus", {"image_root": str(images)}, {})
    writer.write_table(
        "images.parquet", pa.table([names, names, [None] * 6, digests, [20] * 6, [12] * 6, ["train"] * 6], schema=IMAGES)
    )
    writer.write_table("captions.parquet", pa.table([["c"], ["text"], [bytes_digest(b"text")], ["train"]], schema=CAPTIONS))
    writer.write_table("positives.parquet", pa.table([["0.png"], ["c"]], schema=POSITIVES))
    writer.finish()
    return Corpus(writer.target)


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_come_in_the_order_asked_for(corpus, images, workers):
    """Rows may repeat and be in any order; more of them than the pool's window."""
    rows = np.random.default_rng(0).integers(0, 6, 40)
    with ImageReader(corpus, workers) as reader:
        found = list(reader.prepared(rows))
        again = list(reader.prepared([3]))
    for row, image in zip([*rows, 3], [*found, *again], strict=True):
        assert np.array_equal(image, decode_image((images / f"{row}.png").read_bytes()))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_prepared_comes_in_the_order_asked_for(corpus, images, workers):
    """Several pictures go to a worker at once, also where the last of them are fewer."""
    rows = np.random.default_rng(0).integers(0, 6, 39)
    with ImageReader(corpus, workers, np.asarray) as reader:
        found = list(reader.prepared(rows))
    for row, values in zip(rows, found, strict=True):
        assert np.array_equal(values, np.asarray(decode_image((images / f"{row}.png").read_bytes())))


@pytest.mark.parametrize(("prepare", "sizes"), [(as_it_is, [1] * 9), (np.asarray, [4, 4, 1])])
def test_whole_pictures_travel_one_by_one(corpus, monkeypatch, prepare, sizes):
    """A photograph of twelve megapixels is 36 MB, and every task in flight lies in memory."""
    given = []

    def note(self, function, tasks):
        for task in tasks:
            given.append(len(task[0]))
            yield function(task)

    monkeypatch.setattr(Workers, "map", note)
    assert len(list(ImageReader(corpus, 2, prepare).prepared(np.arange(9) % 6))) == 9
    assert given == sizes


class Needy:
    """Needs a module besides that of its class."""

    modules = ("json.tool",)

    def __call__(self, picture):
        return picture.size


@pytest.mark.parametrize(
    ("prepare", "modules"), [(np.asarray, ["numpy"]), (Needy(), [__name__, "json.tool"]), (as_it_is, [as_it_is.__module__])]
)
def test_what_preparing_needs_is_imported_once_before_workers_are_forked(corpus, monkeypatch, prepare, modules):
    """Each would import it again otherwise, in memory of its own."""
    told = []
    monkeypatch.setattr(ForkServerContext, "set_forkserver_preload", lambda context, names: told.append(names))
    with ImageReader(corpus, 1, prepare) as reader:
        assert len(list(reader.prepared([0, 3]))) == 2
    assert told == [[Workers.__module__, *modules]]


def test_a_single_row(corpus):
    """`read` needs no pool."""
    with ImageReader(corpus) as reader:
        assert np.array_equal(reader.read(4), decode_image(picture(4)))


def test_pictures_in_the_table_need_no_files(tmp_path):
    """As in a generated corpus."""
    corpus = Corpus(simple_corpus(tmp_path / "corpus", 4))
    with ImageReader(corpus) as reader:
        assert np.array_equal(reader.read(3), decode_image(random_image(3)))


@pytest.mark.parametrize(("workers", "prepare"), [(0, as_it_is), (1, as_it_is), (1, np.asarray)])
def test_a_changed_file_is_refused(corpus, images, workers, prepare):
    """A file with another digest would put a wrong embedding or score under the right key."""
    (images / "2.png").write_bytes(picture(99))
    with (
        ImageReader(corpus, workers, prepare) as reader,
        pytest.raises(CorpusError, match=r"image 2\.png: its bytes changed.*prepare"),
    ):
        list(reader.prepared([1, 2, 3]))


def test_a_vanished_file_is_named(corpus, images):
    """The message names the image and the path."""
    (images / "2.png").unlink()
    with ImageReader(corpus) as reader, pytest.raises(CorpusError, match=r"image 2\.png: .*images/2\.png: No such file"):
        reader.read(2)
