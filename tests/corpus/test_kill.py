"""SIGKILL in the middle of `prepare`, then the same command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cprd_pipeline.corpus import inspection, packing, prepare
from cprd_pipeline.corpus.images import decode_image
from cprd_pipeline.corpus.originals import read_original
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import CorpusError, MachineError
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.output import OutputWriter
from tests.corpus.conftest import Dataset, files_of, picture

PROGRAM = (
    "import sys; from cprd_pipeline.corpus.prepare import run; from cprd_pipeline.corpus.settings import PrepareSettings\n"
    "run(PrepareSettings.model_validate_json(sys.argv[1]))"
)


def kill_once(settings, appears, cache: Path) -> None:
    """Start the stage in its own process and kill it as soon as a file appears."""
    command = [sys.executable, "-c", PROGRAM, settings.model_dump_json()]
    process = subprocess.Popen(command, env=os.environ | {"CPRD_CACHE": str(cache)}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(cache.glob(appears)):
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not settings.output.exists()


@pytest.mark.parametrize("appears", ["state/corpus/*/inspected/*.parquet", "state/corpus/*/output/images.parquet"])
def test_killed_generation_ends_with_the_same_bytes(scene_settings, tmp_path, appears):
    """While pictures are checked, and while the relevance is computed."""
    splits = {"train": {"images": 1030}, "val": {"images": 300, "captions_each": 3, "relevance": True}}
    killed, whole = scene_settings("killed", splits=splits), scene_settings("whole", splits=splits)
    kill_once(killed, appears, tmp_path / "cache")
    prepare.run(killed)
    prepare.run(whole)
    assert files_of(killed.output) == files_of(whole.output)
    assert not list((tmp_path / "cache" / "state").rglob("*.parquet"))


def test_what_was_decoded_is_not_decoded_again(tmp_path, monkeypatch):
    """A run that stopped in its third chunk goes on there, and ends with the same bytes."""
    monkeypatch.setattr(inspection, "_CHUNK", 4)
    dataset = Dataset(tmp_path / "data", images=15)
    settings = dataset.save()
    decoded = []

    def count_and_stop(content: bytes):
        decoded.append(content)
        if len(decoded) == 10:
            raise MachineError("the disk is full")
        return decode_image(content)

    monkeypatch.setattr(inspection, "decode_image", count_and_stop)
    with pytest.raises(MachineError):
        prepare.run(settings)
    prepare.run(settings)
    assert len(decoded) == 10 + (15 - 8)
    undisturbed = dataset.settings(output=tmp_path / "undisturbed", report=tmp_path / "undisturbed.json")
    prepare.run(undisturbed)
    assert len(decoded) == 10 + (15 - 8) + 15
    assert files_of(settings.output) == files_of(undisturbed.output)


def test_bad_images_are_looked_at_again(tmp_path, monkeypatch):
    """What a stopped run found bad may have been mended since."""
    monkeypatch.setattr(inspection, "_CHUNK", 4)
    dataset = Dataset(tmp_path / "data", images=9)
    good = (dataset.images / "5.png").read_bytes()
    (dataset.images / "5.png").write_bytes(good[:100])
    settings = dataset.save()
    with pytest.raises(CorpusError, match=r"1 of 9 images"):
        prepare.run(settings)
    (dataset.images / "5.png").write_bytes(good)
    assert prepare.run(settings).results["images"] == 9


@pytest.mark.parametrize("pack", [False, True])
def test_a_picture_that_was_replaced_in_between(tmp_path, monkeypatch, pack):
    """The stopped run had decoded all pictures and written its first part: the corpus is that of the files as they are now."""
    monkeypatch.setattr(inspection, "_CHUNK", 4)
    monkeypatch.setattr(packing, "SHARD_IMAGES", 3)
    dataset = Dataset(tmp_path / "data")
    settings = dataset.save(pack=pack)
    with monkeypatch.context() as patch:
        stop_at_second_part(patch)
        with pytest.raises(MachineError, match="the disk is full"):
            prepare.run(settings)
    (dataset.images / "1.png").write_bytes(picture(77))
    prepare.run(settings)
    corpus = Corpus(settings.output)
    assert corpus.images.digests[1].tobytes() == bytes_digest(picture(77))
    assert read_original(corpus.image_root, corpus.original(1)) == picture(77)
    undisturbed = dataset.settings(pack=pack, output=tmp_path / "undisturbed", report=tmp_path / "undisturbed.json")
    prepare.run(undisturbed)
    assert files_of(settings.output) == files_of(undisturbed.output)


def stop_at_second_part(monkeypatch) -> None:
    """Of the next output that is written."""
    write, written = OutputWriter.write_part, []

    def once(self, name, *arguments, **options):
        if written:
            raise MachineError("the disk is full")
        written.append(name)
        write(self, name, *arguments, **options)

    monkeypatch.setattr(OutputWriter, "write_part", once)


def test_damaged_state_is_made_again(tmp_path, monkeypatch):
    """A chunk that is no Parquet file any more costs a second decoding, nothing else."""
    monkeypatch.setattr(inspection, "_CHUNK", 4)
    dataset = Dataset(tmp_path / "data", images=6)
    (dataset.images / "5.png").unlink()
    settings = dataset.save()
    with pytest.raises(CorpusError):
        prepare.run(settings)
    (chunk,) = (tmp_path / "cache").rglob("inspected/*.parquet")
    chunk.write_bytes(b"PAR1 but not really")
    (dataset.images / "5.png").write_bytes((dataset.images / "4.png").read_bytes())
    assert prepare.run(settings).results["images"] == 6
