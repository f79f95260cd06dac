"""Reading a corpus' pictures: in order, checked, inside the root, with and without workers."""

import numpy as np
import pytest

from cprd_pipeline.corpus import prepare
from cprd_pipeline.corpus.images import ImageReader, decode_image, read_inside
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import CorpusError
from tests.corpus.conftest import picture


@pytest.fixture
def corpus(dataset):
    """A corpus of six files."""
    settings = dataset.save()
    prepare.run(settings)
    return Corpus(settings.output)


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_come_in_the_order_asked_for(corpus, dataset, workers):
    """Rows may repeat and be in any order; more of them than the pool's window."""
    rows = np.random.default_rng(0).integers(0, 6, 40)
    with ImageReader(corpus, workers) as reader:
        found = list(reader.stream(rows))
        again = list(reader.stream([3]))
    assert [row for row, _ in found] == rows.tolist()
    for row, image in [*found, *again]:
        assert np.array_equal(image, decode_image((dataset.images / f"{row}.png").read_bytes()))


def test_a_single_row(corpus):
    """`read` needs no pool."""
    with ImageReader(corpus) as reader:
        assert np.array_equal(reader.read(4), decode_image(picture(4)))


def test_a_generated_corpus_is_read_from_its_own_bytes(scene_settings):
    """No file beside the corpus is needed."""
    settings = scene_settings()
    prepare.run(settings)
    corpus = Corpus(settings.output)
    with ImageReader(corpus) as reader:
        assert reader.read(3).size == (48, 48)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_changed_file_is_refused(corpus, dataset, workers):
    """A file with another digest would put a wrong embedding or score under the right key."""
    (dataset.images / "2.png").write_bytes(picture(99))
    with ImageReader(corpus, workers) as reader, pytest.raises(CorpusError, match=r"image 2\.png: its bytes changed.*prepare"):
        list(reader.stream([1, 2, 3]))


def test_a_vanished_file_is_named(corpus, dataset):
    """The message names the image and the path."""
    (dataset.images / "2.png").unlink()
    with ImageReader(corpus) as reader, pytest.raises(CorpusError, match=r"image 2\.png: .*images/2\.png: No such file"):
        reader.read(2)


def test_paths_cannot_leave_the_root(tmp_path):
    """Neither by dots, nor absolutely, nor through a symbolic link to a file or a folder."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(b"x")
    (root / "link").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    for path in ("../outside/secret", str(outside / "secret"), "link", "folder/secret", "folder/../../outside/secret"):
        with pytest.raises(CorpusError, match="leads out of"):
            read_inside(root, path)


def test_links_inside_the_root_and_a_linked_root_are_fine(tmp_path):
    """Data sets are often linked into place as a whole."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_bytes(b"x")
    (root / "b").symlink_to(root / "a")
    (tmp_path / "other").symlink_to(root)
    assert read_inside(tmp_path / "other", "b") == b"x"


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "loop", "."])
def test_impossible_paths_are_errors_of_the_corpus(tmp_path, path):
    """NUL, half a surrogate pair, a loop of links, a folder."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(CorpusError, match="bring the file back"):
        read_inside(tmp_path, path)
