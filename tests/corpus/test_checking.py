"""`prepare --check`: tells what `prepare` would find, and writes nothing."""

import json
import subprocess
import sys

import pytest

from cprd_pipeline.corpus.checking import run_check
from cprd_pipeline.corpus.prepare import run
from cprd_pipeline.corpus.settings import PrepareSettings
from cprd_pipeline.errors import CorpusError
from tests.corpus.conftest import Dataset, files_of, picture
from tests.corpus.made_sources import results, shard


def rows_of(report):
    """The table; a row that occurs several times keeps its last value."""
    return dict(report.table)


def test_a_sound_source(dataset):
    """Counts, splits, lengths and the first rows, and not one file more than before."""
    settings = dataset.save()
    before = files_of(dataset.folder)
    report = run_check(settings)
    assert report.results["stops"] == []
    rows = rows_of(report)
    assert rows["source"] == "Karpathy's split JSON"
    assert (rows["train"], rows["val"]) == ("4 images, 8 captions", "2 images, 4 captions")
    assert rows["row 1"] == "0.png: 'picture 0 text 0'"
    assert rows["characters a caption"] == "16 to 16, median 16, 95 % up to 16"
    assert rows["problems"] == "none so far"
    assert files_of(dataset.folder) == before


def test_what_would_stop_prepare(tmp_path):
    """Missing files all, broken ones among the first; bad captions; each as `prepare` would say it."""
    dataset = Dataset(tmp_path / "data", images=20)
    (dataset.images / "2.png").write_bytes(picture(2)[:50])
    (dataset.images / "15.png").unlink()
    dataset.entries[4]["sentences"][0]["raw"] = " "
    dataset.entries[5]["sentences"][0]["raw"] = "picture 0 text 0"
    report = run_check(dataset.save())
    captions, images = report.results["stops"]
    assert captions.startswith("1 of 40 captions cannot be used, the first is 8: nothing but white space")
    assert images.startswith("2 of 20 images cannot be used, the first is 2.png: cannot be decoded")
    assert (report.results["leaked_captions"], report.results["bad_captions"]) == (1, 1)
    assert ("problem", captions) in report.table
    skipping = run_check(dataset.save(bad_images="skip", bad_captions="skip"))
    assert skipping.results["stops"] == []
    rows = rows_of(skipping)
    assert (rows["train"], rows["images missing or bad"]) == ("14 images, 27 captions", "2, counted above")
    assert rows["without these"] == "train 13 images, 25 captions; val 5 images, 10 captions"


def test_a_holdout_of_a_split_that_is_there(dataset):
    """Known before any image is decoded, by the check and by `prepare` itself."""
    message = "holdout.shares names val, which the source has already; expected names that are new; mend holdout.shares"
    settings = dataset.save(holdout={"shares": {"val": 0.1}})
    [stop] = run_check(settings).results["stops"]
    assert stop.startswith(message)
    for picture_file in dataset.images.iterdir():
        picture_file.unlink()
    with pytest.raises(CorpusError, match=message):
        run(settings)


def test_notes_and_lists(tmp_path):
    """What a reader interpreted, and what lists leave out, is told."""
    path = results(tmp_path)
    path.write_text(path.read_text() + "6.png| 4   A dog .\n")
    (tmp_path / "val.txt").write_text("0.png\n6.png\nnowhere.png\n")
    files = {"paths": path, "split_lists": {"val": tmp_path / "val.txt"}}
    report = run_check(PrepareSettings.model_validate({"source": "auto", "files": files, "holdout": {"shares": {"test": 0.1}}}))
    rows = rows_of(report)
    assert rows["val"] == "2 images, 3 captions"
    assert rows["images in no list, left out"] == "5"
    assert rows["listed names that are not there"] == "1"
    assert "no separator after the number 4" in rows["note"]
    assert "drawn by content" in rows["holdout"]


def test_files_inside_of_shards(tmp_path):
    """There is no folder to look into."""
    report = run_check(PrepareSettings.model_validate({"source": "auto", "files": {"paths": shard(tmp_path)}}))
    assert rows_of(report)["images"] == "in the files themselves"
    assert report.results["stops"] == []


def test_a_damaged_source_is_an_error(dataset):
    """As in `prepare` itself."""
    settings = dataset.save()
    dataset.annotations.write_text("{")
    with pytest.raises(CorpusError, match="not valid JSON at line 1"):
        run_check(settings)


@pytest.mark.parametrize(("spoil", "code"), [(False, 0), (True, 2)])
def test_the_command(dataset, spoil, code):
    """The exit code says whether `prepare` would stop; results go to stdout, so that the report's place does not matter."""
    if spoil:
        (dataset.images / "5.png").unlink()
    config = dataset.folder / "prepare.yaml"
    config.write_text(dataset.save().model_copy(update={"report": config / "below a file.json"}).model_dump_json())
    command = [sys.executable, "-m", "cprd_pipeline", "prepare", "--check", "--json", "--config", str(config)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == code, found.stderr
    report = json.loads(found.stdout)
    assert report["stage"] == "prepare --check"
    assert len(report["results"]["stops"]) == spoil
    assert not (dataset.folder / "corpus").exists()


def test_the_demo_world(scene_settings):
    """Nothing is drawn: its sizes are settings."""
    report = run_check(scene_settings())
    assert report.results == {
        "splits": {"train": {"images": 12, "captions": 24}, "val": {"images": 8, "captions": 24}},
        "stops": [],
    }
