"""Roots of images: local folders, and URIs through fsspec; no path leaves either."""

import zipfile

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cprd_pipeline.corpus import inspection, prepare, roots
from cprd_pipeline.corpus.images import ImageReader, decode_image
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.corpus.roots import parse_root, read_inside
from cprd_pipeline.corpus.workers import Workers
from cprd_pipeline.errors import CorpusError, MachineError, MissingDependencyError
from tests.corpus.conftest import files_of


@pytest.fixture
def bucket():
    """A root in memory with two files, and one file beside it."""
    files = fsspec.filesystem("memory")
    files.pipe({"/pictures/a.png": b"a", "/pictures/deep/b.png": b"b", "/secret": b"x", "/pictures-2/c": b"x"})
    yield "memory://pictures"
    files.rm("/", recursive=True)


def test_addresses_and_folders_are_told_apart(tmp_path):
    """A URI stays a string, with both slashes; anything else is a folder."""
    assert parse_root("s3://bucket/images/") == "s3://bucket/images"
    assert parse_root("memory://") == "memory://"
    assert parse_root(str(tmp_path)) == tmp_path
    with pytest.raises(CorpusError, match="file:///data: an address of this machine; write it as a plain path"):
        parse_root("file:///data")


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


@given(st.lists(st.sampled_from(["..", ".", "", "link", "folder", "inner", "secret", "file"]), max_size=5))
def test_no_combination_of_steps_leads_out(tree, steps):
    """Whatever is put together: the one file inside, or our own error."""
    for path in ("/".join(steps), str(tree / "/".join(steps))):
        try:
            assert read_inside(tree, path) == b"inside"
        except CorpusError as error:
            assert error.found  # noqa: PT017


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A root with links out of it and inside it."""
    place = tmp_path_factory.mktemp("tree")
    root = place / "root"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "file").write_bytes(b"inside")
    (place / "secret").write_bytes(b"outside")
    (root / "link").symlink_to(place / "secret")
    (root / "folder").symlink_to(place)
    (root / "inner" / "folder").symlink_to(root)
    return root


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


def test_files_of_a_remote_root(bucket):
    """Also in deeper folders, and from the whole of a store."""
    assert read_inside(bucket, "a.png") == b"a"
    assert read_inside(bucket, "deep/b.png") == b"b"
    assert read_inside("memory://", "pictures/a.png") == b"a"


@pytest.mark.parametrize(
    "path", ["../secret", "deep/../../secret", "/secret", "..", ".", "", "deep//b.png", "./a.png", "deep\\..\\..\\secret"]
)
def test_remote_paths_cannot_leave_the_root(bucket, path):
    """Nor are there two ways to write one path."""
    with pytest.raises(CorpusError, match=r"leads out of memory://pictures; expected a path inside the image root"):
        read_inside(bucket, path)


@given(st.lists(st.sampled_from(["..", ".", "", "deep", "secret", "pictures", "pictures-2", "c", "\\"]), max_size=6))
def test_no_combination_reaches_a_neighbour(parts):
    """Whatever is put together: a file of the root, or our own error."""
    files = fsspec.filesystem("memory")
    files.pipe({"/pictures/deep/secret": b"inside", "/secret": b"out", "/pictures-2/c": b"out", "/c": b"out"})
    try:
        assert read_inside("memory://pictures", "/".join(parts)) == b"inside"
    except CorpusError as error:
        assert error.found  # noqa: PT017


@pytest.mark.parametrize("path", ["missing.png", "deep", "a\0b", "\ud800"])
def test_a_missing_remote_file_is_named(bucket, path):
    """An object that is not there, a folder, a NUL character, half a surrogate pair: one line with the address."""
    with pytest.raises(CorpusError, match=r"memory://pictures/.*; bring the file back") as caught:
        read_inside(bucket, path)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_a_store_that_does_not_answer_is_the_machines_fault(bucket, monkeypatch):
    """A lost connection must not count as a bad image."""

    class Gone:
        def cat_file(self, path):
            raise ConnectionError("timed\nout")

    monkeypatch.setattr(roots, "_connect", lambda root: (Gone(), "b"))
    with pytest.raises(MachineError, match=r"s3://b/a\.png: ConnectionError: timed out; .*check the network and the credentials"):
        read_inside("s3://b", "a.png")


class Expired:
    """A store whose token runs out after some files."""

    def __init__(self, files: int, error: Exception) -> None:
        self.left, self.error = files, error

    def cat_file(self, path):
        if not self.left:
            raise self.error
        self.left -= 1
        return fsspec.filesystem("memory").cat_file(path)


@pytest.mark.parametrize("error", [PermissionError("The provided token has expired."), ValueError("no key"), OSError(16, "busy")])
def test_refused_credentials_are_no_missing_file(bucket, monkeypatch, error):
    """Whatever kind of error the store makes of them."""
    store = Expired(1, error)
    monkeypatch.setattr(roots, "_connect", lambda root: (store, "pictures"))
    assert read_inside(bucket, "a.png") == b"a"
    with pytest.raises(MachineError, match=r"memory://pictures/a\.png: .*; expected a place that answers and lets us read; check"):
        read_inside(bucket, "a.png")


def test_credentials_that_are_refused_at_the_door(monkeypatch):
    """Some stores ask for them as soon as the address is opened: no reason to count its files as bad."""

    def refuse(address):
        raise PermissionError("no such key id")

    monkeypatch.setattr(fsspec, "url_to_fs", refuse)
    with pytest.raises(
        MachineError, match=r"s3://locked: PermissionError: no such key id; .*check the network and the credentials"
    ):
        read_inside("s3://locked", "a.png")


def test_a_package_that_is_missing_is_named(monkeypatch):
    """One line: the package by fsspec, the extra by us."""

    def refuse(address):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", refuse)
    with pytest.raises(MissingDependencyError, match=r"s3://nobody: .*s3fs.*pip install 'cprd-pipeline\[remote\]'"):
        read_inside("s3://nobody", "a.png")


def test_an_unknown_kind_of_address_is_refused():
    """The error shows what an address looks like."""
    with pytest.raises(MachineError, match=r"nope://x: ValueError: Protocol not known: nope; expected an address such as s3://"):
        read_inside("nope://x", "a.png")


@pytest.mark.parametrize("pack", [False, True])
def test_a_corpus_of_remote_files(bucket, dataset, pack):
    """Prepared and read like a local one; a file that changes there is noticed; packed ones are not asked for again."""
    files = fsspec.filesystem("memory")
    contents = [(dataset.images / f"{number}.png").read_bytes() for number in range(6)]
    files.pipe({f"/pictures/{number}.png": content for number, content in enumerate(contents)})
    settings = dataset.save(files={"images": bucket}, pack=pack)
    prepare.run(settings)
    corpus = Corpus(settings.output)
    assert corpus.image_root == bucket
    files.pipe("/pictures/4.png", contents[0])
    with ImageReader(corpus) as reader:
        assert np.array_equal(reader.read(3), decode_image(contents[3]))
        if pack:
            assert np.array_equal(reader.read(4), decode_image(contents[4]))
        else:
            with pytest.raises(CorpusError, match=r"image 4\.png: its bytes changed"):
                reader.read(4)


def test_a_store_that_does_not_answer_stops_prepare(bucket, dataset, monkeypatch):
    """Even where bad images are left out: all of them would be."""
    monkeypatch.setattr(roots, "_connect", lambda root: (object(), "pictures"))
    with pytest.raises(MachineError, match="check the network"):
        prepare.run(dataset.save(files={"images": bucket}, bad_images="skip"))


@pytest.mark.parametrize("stage", ["decoding", "going on", "comparing"])
def test_a_token_that_expires_stops_prepare(bucket, dataset, monkeypatch, stage):
    """In the middle of a run that leaves bad images out, of the one that goes on after it, or of comparing a whole corpus."""
    monkeypatch.setattr(inspection, "_CHUNK", 2)
    fsspec.filesystem("memory").pipe({f"/pictures/{path.name}": path.read_bytes() for path in dataset.images.iterdir()})
    settings = dataset.save(files={"images": bucket}, bad_images="skip")
    if stage == "comparing":
        prepare.run(settings)
    before = files_of(settings.output)
    for files in (5, 1) if stage == "going on" else (5,):
        store = Expired(files, PermissionError("The provided token has expired."))
        with monkeypatch.context() as patch:
            patch.setattr(roots, "_connect", lambda root, store=store: (store, "pictures"))
            with pytest.raises(MachineError, match=r"\d\.png: PermissionError: The provided token has expired"):
                prepare.run(settings)
        assert files_of(settings.output) == before
    assert prepare.run(settings).results["images"] == 6


def test_worker_processes_connect_by_themselves(tmp_path):
    """A root is only a string on its way to them."""
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("deep/a.png", b"a")
        archive.writestr("b.png", b"b")
    with Workers(1) as workers:
        found = list(workers.map(_read_from_archive, [(str(tmp_path / "pictures.zip"), path) for path in ("deep/a.png", "b.png")]))
    assert found == [b"a", b"b"]


def _read_from_archive(task):
    archive, path = task
    return read_inside(f"zip://::{archive}", path)
