"""Every image is decoded once: in order, in pieces that a killed run keeps, with a reason for each bad one."""

import os

import pytest
from PIL import Image

from cprd_pipeline.corpus import inspection
from cprd_pipeline.corpus.formats.records import ImageRecord
from cprd_pipeline.corpus.images import decode_image
from cprd_pipeline.corpus.inspection import Inspected, files_changed, inspect_images
from cprd_pipeline.store.fingerprint import bytes_digest
from tests.corpus.conftest import picture

COUNT = 53


@pytest.fixture
def root(tmp_path):
    """53 files, each of another width."""
    folder = tmp_path / "images"
    folder.mkdir()
    for row in range(COUNT):
        (folder / f"{row}.png").write_bytes(picture(row, size=(3 + row, 5)))
    return folder


def records() -> list[ImageRecord]:
    """Of those files; every tenth brings its bytes along."""
    return [
        ImageRecord(str(row), "train", stored=picture(row, size=(3 + row, 5)))
        if row % 10 == 0
        else ImageRecord(str(row), "train", f"{row}.png")
        for row in range(COUNT)
    ]


def expected(row: int) -> Inspected:
    """What decoding tells of a row."""
    return Inspected(bytes_digest(picture(row, size=(3 + row, 5))), 3 + row, 5)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_inspected_in_order(root, tmp_path, workers, monkeypatch):
    """Whatever the tasks of workers and the pieces of the state are."""
    monkeypatch.setattr(inspection, "_CHUNK", 20)
    assert inspect_images(records(), root, workers, tmp_path / "state") == [expected(row) for row in range(COUNT)]


def test_a_killed_run_decodes_only_what_is_missing(root, tmp_path, monkeypatch):
    """Pieces without a bad image are kept; one with a bad image is looked at again, since its file may be mended."""
    monkeypatch.setattr(inspection, "_CHUNK", 20)
    (root / "25.png").write_bytes(b"broken")
    first = inspect_images(records(), root, 0, tmp_path / "state")
    assert [row for row, seen in enumerate(first) if seen.reason] == [25]
    (root / "25.png").write_bytes(picture(25, size=(28, 5)))
    decoded = watch_decoding(monkeypatch)
    assert inspect_images(records(), root, 0, tmp_path / "state") == [expected(row) for row in range(COUNT)]
    assert decoded == [picture(row, size=(3 + row, 5)) for row in range(20, 40)]


def watch_decoding(monkeypatch) -> list[bytes]:
    """What this process decodes from now on."""
    decoded = []

    def watched(content: bytes) -> Image.Image:
        decoded.append(content)
        return decode_image(content)

    monkeypatch.setattr(inspection, "decode_image", watched)
    return decoded


@pytest.mark.parametrize("change", ["another", "gone", "none"])
def test_kept_pieces_are_those_of_the_files_of_now(root, tmp_path, monkeypatch, change):
    """A file that changed since an earlier run, even with its size and time kept, makes its piece anew and no other one."""
    monkeypatch.setattr(inspection, "_CHUNK", 20)
    state, path = tmp_path / "state", root / "45.png"
    path.write_bytes(picture(1, "BMP", (48, 5)))
    seen = inspect_images(records(), root, 0, state)
    if change == "another":
        before, content = path.stat(), picture(2, "BMP", (48, 5))
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size
        seen[45] = Inspected(bytes_digest(content), 48, 5)
    if change == "gone":
        path.unlink()
        seen[45] = Inspected(b"", 0, 0, f"{path}: No such file or directory")
    decoded = watch_decoding(monkeypatch)
    assert inspect_images(records(), root, 0, state) == seen
    assert len(decoded) == {"another": 13, "gone": 12, "none": 0}[change]


@pytest.mark.parametrize("workers", [0, 1])
def test_changed_files_are_noticed(root, workers):
    """Another content, a file that is gone, a bad one that decodes by now; otherwise nothing changed."""
    paths = [f"{row}.png" for row in range(COUNT)]
    digests = [expected(row).digest for row in range(COUNT)]
    (root / "bad.png").write_bytes(b"broken")
    assert not files_changed(digests, paths, ["bad.png", "gone.png"], root, workers)
    (root / "bad.png").write_bytes(picture(0))
    assert files_changed(digests, paths, ["bad.png"], root, workers)
    (root / "40.png").write_bytes(picture(0))
    assert files_changed(digests, paths, [], root, workers)
    (root / "40.png").unlink()
    assert files_changed(digests, paths, [], root, workers)


def test_every_reason_is_told(root, tmp_path):
    """The digest of what could be read, no size, and why."""
    (root / "text.png").write_bytes(b"no picture")
    bad = [ImageRecord("a", "train", "text.png"), ImageRecord("b", "train", "gone.png"), ImageRecord("c", "train", "../out.png")]
    found = inspect_images(bad, root, 0, tmp_path / "state")
    assert [seen[:3] for seen in found] == [(bytes_digest(b"no picture"), 0, 0), (b"", 0, 0), (b"", 0, 0)]
    for seen, reason in zip(found, ("not an image in a format", "No such file", "leads out of"), strict=True):
        assert reason in seen.reason
