"""The stage `prepare`: the corpus folder, its report, and what stops it."""

import json
from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from cprd_pipeline.corpus import prepare
from cprd_pipeline.corpus.checking import run_check
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.corpus.relevance import read_relevance
from cprd_pipeline.corpus.settings import PrepareSettings
from cprd_pipeline.errors import CorpusError, StoreError
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.report import read_report
from tests.corpus.conftest import files_of, picture


def pairs_of(corpus):
    """Positives as ids."""
    return {(corpus.images.ids[image], corpus.captions.ids[caption]) for image, caption in corpus.positives}


def test_files_become_a_corpus(dataset):
    """Ids, splits, paths, digests of original bytes and of UTF-8 text, sizes after rotation, positives."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((12, 20, 3), np.uint8)).save(dataset.images / "1.png", exif=exif)
    dataset.entries[0]["sentences"][0]["raw"] = "ein Hund läuft 🐕"
    settings = dataset.save()
    report = prepare.run(settings)
    corpus = Corpus(settings.output)
    table = pq.read_table(settings.output / "images.parquet").to_pylist()
    assert [row["path"] for row in table] == [f"{n}.png" for n in range(6)]
    assert [(row["width"], row["height"]) for row in table[:2]] == [(20, 12), (12, 20)]
    assert all(row["digest"] == bytes_digest((dataset.images / row["path"]).read_bytes()) for row in table)
    assert all(row["bytes"] is None for row in table)
    assert corpus.captions.digests[0].tobytes() == bytes_digest("ein Hund läuft 🐕".encode())
    assert corpus.images.splits.tolist() == ["train", "train", "val"] * 2
    assert corpus.captions.splits.tolist() == ["train"] * 4 + ["val"] * 2 + ["train"] * 4 + ["val"] * 2
    assert pairs_of(corpus) == {(f"{caption // 2}.png", str(caption)) for caption in range(12)}
    assert corpus.image_root == dataset.images
    assert read_relevance(corpus, corpus.split("val")) is None
    assert report.results["splits"] == {"train": {"images": 4, "captions": 8}, "val": {"images": 2, "captions": 4}}
    assert read_report(settings.report) == report


def test_equal_content_is_positive_and_counted(dataset):
    """The same picture or text under another id is a positive too; across splits it is a leak."""
    (dataset.images / "3.png").write_bytes(picture(0))  # both train
    (dataset.images / "5.png").write_bytes(picture(1))  # val and train
    dataset.entries[4]["sentences"][0]["raw"] = "picture 1 text 0"  # both train
    settings = dataset.save()
    results = prepare.run(settings).results
    own = {(f"{caption // 2}.png", str(caption)) for caption in range(12)}
    twins = {("0.png", "6"), ("0.png", "7"), ("3.png", "0"), ("3.png", "1")}
    assert pairs_of(Corpus(settings.output)) == own | twins | {("1.png", "8"), ("4.png", "2")}
    assert (results["positives"], results["annotated_positives"]) == (18, 12)
    assert (results["duplicate_images"], results["duplicate_captions"]) == (1, 1)
    assert (results["leaked_images"], results["leaked_captions"]) == (1, 0)


def test_scenes_become_a_corpus(scene_settings):
    """Pictures travel inside; every caption is wholly true of its picture, in the file order of both."""
    settings = scene_settings()
    prepare.run(settings)
    corpus = Corpus(settings.output)
    split = corpus.split("val")
    relevance = read_relevance(corpus, split)
    assert relevance.shape == (8, 24)
    assert relevance.dtype == np.float32
    image_row = {row: place for place, row in enumerate(split.images)}
    caption_row = {row: place for place, row in enumerate(split.captions)}
    assert all(relevance[image_row[image], caption_row[caption]] == 1 for image, caption in split.positives)
    assert read_relevance(corpus, corpus.split("train")) is None
    assert "relevance_train.npy" not in files_of(settings.output)
    table = pq.read_table(settings.output / "images.parquet").to_pylist()
    assert all(row["digest"] == bytes_digest(row["bytes"]) for row in table)
    assert {(row["width"], row["height"], row["path"]) for row in table} == {(48, 48, None)}


def test_relevance_across_blocks(scene_settings, monkeypatch):
    """Cutting a split into blocks for drawing moves no row or column of its relevance."""
    monkeypatch.setattr("cprd_pipeline.corpus.formats.generated._BLOCK", 3)
    settings = scene_settings()
    prepare.run(settings)
    corpus = Corpus(settings.output)
    relevance = read_relevance(corpus, corpus.split("val"))
    assert (relevance[np.repeat(np.arange(8), 3), np.arange(24)] == 1).all()
    assert (relevance < 1).any()
    assert np.isfinite(relevance).all()


def test_same_in_same_out(scene_settings):
    """The same settings give the same bytes, in whatever order the splits are written."""
    splits = {
        "val": {"images": 8, "captions_each": 3, "relevance": True},
        "train": {"images": 12, "captions_each": 2},
    }
    one, other = scene_settings("one"), scene_settings("other", splits=splits)
    prepare.run(one)
    prepare.run(other)
    assert files_of(one.output) == files_of(other.output)


def test_splits_and_seeds_are_independent(scene_settings):
    """Another size of train leaves val as it was; another seed changes both; train and val share no picture."""
    small, large, reseeded = (
        scene_settings(name, **change)
        for name, change in {
            "small": {},
            "large": {
                "splits": {"train": {"images": 20}, "val": {"images": 8, "captions_each": 3}},
            },
            "reseeded": {"seed": 1},
        }.items()
    )
    digests = {}
    for settings in (small, large, reseeded):
        prepare.run(settings)
        images = Corpus(settings.output).images
        digests[settings.output.name] = {
            split: {images.digests[row].tobytes() for row in np.flatnonzero(images.splits == split)} for split in ("train", "val")
        }
    assert digests["small"]["val"] == digests["large"]["val"]
    assert digests["small"]["train"] != digests["large"]["train"]
    assert not digests["small"]["val"] & digests["reseeded"]["val"]
    assert not digests["small"]["val"] & digests["small"]["train"]


def test_workers_change_nothing(dataset):
    """Decoding in processes gives the same bytes."""
    one = dataset.save()
    two = dataset.settings(output=dataset.folder / "two", report=dataset.folder / "two.json", workers=2)
    prepare.run(one)
    prepare.run(two)
    assert files_of(one.output) == files_of(two.output)


def test_a_second_run_does_nothing(dataset, scene_settings, monkeypatch):
    """Neither source is read or decoded again."""
    for settings in (dataset.save(), scene_settings()):
        first = prepare.run(settings)
        with monkeypatch.context() as patch:
            patch.setattr(prepare, "inspect_images", None)
            patch.setattr(prepare, "World", None)
            second = prepare.run(settings)
            assert second.up_to_date
            assert second.results == first.results
            settings.report.unlink()
            assert prepare.run(settings).results == first.results


def test_a_changed_file_makes_the_corpus_anew(dataset):
    """The annotations are the same, the picture is not."""
    settings = dataset.save()
    before = prepare.run(settings)
    (dataset.images / "4.png").write_bytes(picture(77))
    report = prepare.run(settings)
    assert not report.up_to_date
    assert report.results == before.results
    assert Corpus(settings.output).images.digests[4].tobytes() == bytes_digest(picture(77))


def test_a_corpus_stays_while_what_replaces_it_cannot_be_made(dataset):
    """A picture is gone for a while, as when a network disk is: then it is back, and all is as before."""
    settings = dataset.save()
    prepare.run(settings)
    before = InputFolder(settings.output, "corpus").manifest
    (dataset.images / "4.png").rename(dataset.images / "away.png")
    with pytest.raises(CorpusError, match="1 of 6 images cannot be used"):
        prepare.run(settings)
    assert InputFolder(settings.output, "corpus").manifest == before
    (dataset.images / "away.png").rename(dataset.images / "4.png")
    assert prepare.run(settings).up_to_date


def test_changed_annotations_make_the_corpus_anew(dataset):
    """Their digest is an input."""
    settings = dataset.save()
    prepare.run(settings)
    dataset.entries[0]["sentences"][0]["raw"] = "another text"
    assert not prepare.run(dataset.save()).up_to_date
    assert Corpus(settings.output).texts[0] == "another text"


def spoil_pictures(dataset):
    """One is cut off, one is gone."""
    (dataset.images / "1.png").write_bytes(picture(1)[:200])
    (dataset.images / "5.png").unlink()


def test_bad_images_stop_the_stage(dataset):
    """All are counted, the first is named with its reason; nothing is written."""
    spoil_pictures(dataset)
    settings = dataset.save()
    with pytest.raises(
        CorpusError, match=r"2 of 6 images cannot be used, the first is 1\.png: cannot be decoded.*bad_images: skip"
    ):
        prepare.run(settings)
    assert not settings.output.exists()
    (dataset.images / "1.png").write_bytes(picture(1))
    (dataset.images / "5.png").write_bytes(picture(5))
    assert prepare.run(settings).results["images"] == 6


def test_bad_images_are_left_out_and_listed(dataset):
    """With their captions; each with its reason. Mended files come back by the same command."""
    spoil_pictures(dataset)
    settings = dataset.save(bad_images="skip")
    results = prepare.run(settings).results
    assert (results["rejected_images"], results["rejected_captions"], results["bad_captions"]) == (2, 4, 0)
    corpus = Corpus(settings.output)
    assert corpus.images.ids == ["0.png", "2.png", "3.png", "4.png"]
    assert corpus.captions.ids == [str(n) for n in (0, 1, 4, 5, 6, 7, 8, 9)]
    assert len(corpus.positives) == 8
    rejected = pq.read_table(settings.output / "rejected.parquet").to_pylist()
    assert [(row["image_id"], row["path"]) for row in rejected] == [("1.png", "1.png"), ("5.png", "5.png")]
    assert "cannot be decoded" in rejected[0]["reason"]
    assert "No such file" in rejected[1]["reason"]
    assert prepare.run(settings).up_to_date
    (dataset.images / "5.png").write_bytes(picture(5))
    assert prepare.run(settings).results["rejected_images"] == 1


def test_a_limit_on_bad_images(dataset):
    """A third is bad: a limit of 40 % lets it pass, one of 30 % stops."""
    spoil_pictures(dataset)
    with pytest.raises(CorpusError, match=r"2 of 6 images.*expected at most 0\.3 of all"):
        prepare.run(dataset.save(bad_images=0.3))
    assert prepare.run(dataset.save(bad_images=0.4)).results["rejected_images"] == 2


def test_nothing_left_is_an_error(dataset):
    """Skipping every image makes no corpus."""
    for path in dataset.images.iterdir():
        path.unlink()
    message = r"6 of 6 images cannot be used.*at least one that can; look whether files\.images is the folder"
    with pytest.raises(CorpusError, match=message):
        prepare.run(dataset.save(bad_images="skip"))


def test_most_images_left_out_are_doubted(dataset):
    """Allowed or not, that is rarely meant; half of them are no matter for a note."""
    for number in range(4):
        (dataset.images / f"{number}.png").unlink()
    table = dict(prepare.run(dataset.save(bad_images="skip")).table)
    assert table["note"] == "4 of 6 images are left out: is files.images the folder that the paths begin in?"
    assert table["rejected"] == "4 images with 8 captions (rejected.parquet)"
    assert table["note"] in run_check(dataset.save(bad_images="skip")).results["notes"]
    (dataset.images / "3.png").write_bytes(picture(3))
    assert "note" not in dict(prepare.run(dataset.save(bad_images="skip")).table)


def test_a_link_out_of_the_folder_is_a_bad_image(dataset):
    """Symbolic links cannot smuggle in other files."""
    outside = dataset.folder / "outside.png"
    outside.write_bytes(picture(0))
    (dataset.images / "0.png").unlink()
    (dataset.images / "0.png").symlink_to(outside)
    with pytest.raises(CorpusError, match=r"0\.png: leads out of"):
        prepare.run(dataset.save())


def test_relevance_of_another_size_is_refused(tmp_path, scene_settings):
    """Evaluation must not read a matrix that does not fit."""
    settings = scene_settings()
    prepare.run(settings)
    parts = {name: pq.read_table(settings.output / f"{name}.parquet") for name in ("images", "captions", "positives")}
    writer = OutputWriter(tmp_path / "odd", "corpus", {"image_root": "."}, {})
    for name, table in parts.items():
        writer.write_table(f"{name}.parquet", table)
    writer.write_part("relevance_val.npy", lambda path: np.save(path, np.zeros((8, 23), np.float32)))
    writer.finish()
    corpus = Corpus(tmp_path / "odd")
    with pytest.raises(StoreError, match=r"float32 \(8, 23\); expected float32 \(8, 24\)"):
        read_relevance(corpus, corpus.split("val"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "karpathy"}, "source is karpathy, but the group files is missing"),
        ({"source": "auto"}, "source is auto, but the group files is missing"),
        ({"holdout": {"shares": {"val": 0.1}}}, "holdout is for files"),
        ({"holdout": {"shares": {"val": 0.6, "test": 0.4}}}, "the shares sum to 1, which leaves nothing"),
        ({"holdout": {"shares": {"train": 0.4}}}, "train is what the other shares leave"),
        ({"files": {"paths": []}}, r"\[\] is neither a path nor a list"),
        ({"files": {"paths": {}}}, "names no file"),
        ({"files": {"paths": ["a", 3]}}, "neither a path nor a list"),
        ({"files": {"paths": "a", "split_lists": {"train": "rest", "val": "rest"}}}, "more than one split takes the rest"),
        ({"files": {"paths": "a", "delimiter": "::"}}, "at most 1 character"),
        ({"bad_captions": 2}, "2 is neither error, nor skip, nor a share"),
        ({"max_images": 5}, "max_images is for files"),
        ({"scenes": {"splits": {"../x": {"images": 1}}}}, "pattern"),
        ({"scenes": {"splits": {}}}, "at least 1"),
        ({"bad_images": 1.5}, "1.5 is neither error, nor skip, nor a share"),
        ({"bad_images": "maybe"}, "'maybe' is neither error"),
        ({"bad_images": True}, "True is neither error"),
        ({"bad_images": "skip"}, "bad_images is for files; what is generated is good"),
        ({"bad_captions": 0.1}, "bad_captions is for files"),
        ({"captions": {"lower_case": True}}, "captions is for files"),
    ],
)
def test_settings_that_contradict(values, message):
    """Refused at the door."""
    with pytest.raises(ValidationError, match=message):
        PrepareSettings.model_validate(values)


def test_no_path_of_the_output_or_count_of_workers_is_in_the_manifest(dataset):
    """Only what shapes the bytes, and the image root, which readers need."""
    settings = dataset.save()
    prepare.run(settings)
    manifest = json.loads((settings.output / "_manifest.json").read_text())
    values = {key: value for key, value in manifest["settings"].items() if isinstance(value, str)}
    same = {"source": "karpathy", "unpaired": "error", "bad_images": "error", "bad_captions": "error"}
    assert values == same | {"image_root": str(dataset.images)}
    assert "workers" not in manifest["settings"]
    assert manifest["inputs"] == {"annotations": bytes_digest(dataset.annotations.read_bytes()).hex()}


def test_real_photographs(real_data, tmp_path):
    """Flickr8k's and COCO's real files, splits and counts as their README says; the known text twins are positives."""
    counts = {}
    for name, images in (("photos/dataset_flickr8k.json", "photos/images"), ("photos_coco/dataset_coco.json", "photos_coco")):
        group = {"annotations": real_data / name, "images": real_data / images}
        places = {"output": tmp_path / images, "report": tmp_path / "report.json"}
        settings = PrepareSettings.model_validate({"source": "karpathy", "karpathy": group, "workers": 2} | places)
        counts[images] = prepare.run(settings).results
    flickr, coco = counts.values()
    assert {split: found["images"] for split, found in flickr["splits"].items()} == {"train": 796, "val": 123, "test": 135}
    assert {split: found["images"] for split, found in coco["splits"].items()} == {"train": 125, "val": 15, "test": 14}
    assert (flickr["captions"], coco["captions"]) == (1054 * 5, 154 * 5)
    for name, found in (("photos/dataset_flickr8k.json", flickr), ("photos_coco/dataset_coco.json", coco)):
        assert (found["positives"], found["duplicate_captions"], found["leaked_captions"]) == slow_counts(real_data / name)


def slow_counts(annotations):
    """Positives, text duplicates and text leaks, from the JSON alone; no two real photographs are the same."""
    owners, splits, said = defaultdict(set), defaultdict(set), []
    for entry in json.loads(annotations.read_text())["images"]:
        split = entry["split"].replace("restval", "train")
        for sentence in entry["sentences"]:
            owners[split, sentence["raw"]].add(entry["filename"])
            splits[sentence["raw"]].add(split)
            said.append((split, sentence["raw"]))
    positives = sum(len(owners[item]) for item in said)
    return positives, len(said) - len(set(said)), sum(len(found) > 1 for found in splits.values())


def test_bad_captions(dataset):
    """Stop the stage by default; left out by setting, counted and listed; an image may lose all of its captions."""
    for number in range(2):
        dataset.entries[4]["sentences"][number]["raw"] = ("  ", "a\x00b")[number]
    with pytest.raises(
        CorpusError, match=r"2 of 12 captions cannot be used, the first is 8: nothing but white space.*bad_captions: skip"
    ):
        prepare.run(dataset.save())
    settings = dataset.save(bad_captions=0.2)
    results = prepare.run(settings).results
    assert (results["captions"], results["bad_captions"], results["rejected_captions"]) == (10, 2, 0)
    assert results["unpaired_images"] == 1
    rejected = pq.read_table(settings.output / "rejected.parquet").to_pylist()
    assert rejected[1] == {"image_id": "4.png", "path": None, "reason": "caption 9: control character U+0000 at place 2"}
    assert prepare.run(settings).up_to_date


def test_captions_are_normalised_by_setting(dataset):
    """Before their digests are taken."""
    dataset.entries[0]["sentences"][0]["raw"] = "cafe\u0301"
    prepare.run(dataset.save())
    settings = dataset.save(captions={"normalise": "NFC"})
    assert not prepare.run(settings).up_to_date
    corpus = Corpus(settings.output)
    assert corpus.texts[0] == "café"
    assert corpus.captions.digests[0].tobytes() == bytes_digest("café".encode())


def test_unpaired_pools(tmp_path):
    """Images without captions and captions without images, with splits of their own, reach the corpus and are counted."""
    (tmp_path / "0.png").write_bytes(picture(0))
    (tmp_path / "1.png").write_bytes(picture(1))
    rows = "image,caption,split\n0.png,a dog,train\n1.png,,train\n,a cat,train\n,a bird,pool\n"
    (tmp_path / "made.csv").write_text(rows)
    files = {"paths": tmp_path / "made.csv", "unpaired": "keep"}
    places = {"output": tmp_path / "corpus", "report": tmp_path / "report.json"}
    settings = PrepareSettings.model_validate({"source": "csv", "files": files} | places)
    results = prepare.run(settings).results
    assert (results["unpaired_images"], results["unpaired_captions"], results["positives"]) == (1, 2, 1)
    assert results["splits"] == {"train": {"images": 2, "captions": 2}, "pool": {"images": 0, "captions": 1}}
    assert Corpus(settings.output).captions.splits.tolist() == ["train", "train", "pool"]


def test_a_caption_of_several_images(tmp_path):
    """It is positive for each; it stays while one of them is good."""
    (tmp_path / "0.png").write_bytes(picture(0))
    (tmp_path / "1.png").write_bytes(picture(1))
    (tmp_path / "made.csv").write_text("image,caption,caption_id\n0.png,two dogs,c\n1.png,two dogs,c\n2.png,two dogs,c\n")
    places = {"output": tmp_path / "corpus", "report": tmp_path / "report.json"}
    values = {"source": "csv", "files": {"paths": tmp_path / "made.csv"}, "bad_images": "skip"} | places
    results = prepare.run(PrepareSettings.model_validate(values)).results
    assert (results["captions"], results["positives"], results["rejected_captions"]) == (1, 2, 0)
    assert pairs_of(Corpus(tmp_path / "corpus")) == {("0.png", "c"), ("1.png", "c")}


def test_a_holdout_keeps_duplicates_together(dataset):
    """Without splits some images are drawn, whatever their ids; nothing leaks."""
    (dataset.images / "5.png").write_bytes(picture(0))
    for entry in dataset.entries:
        del entry["split"]
    dataset.entries[1]["sentences"][0]["raw"] = dataset.entries[4]["sentences"][1]["raw"]
    settings = dataset.save(holdout={"shares": {"val": 0.4}, "seed": 3})
    results = prepare.run(settings).results
    splits = Corpus(settings.output).images.splits.tolist()
    assert set(splits) == {"train", "val"}
    assert splits[0] == splits[5]
    assert splits[1] == splits[4]
    assert (results["leaked_images"], results["leaked_captions"]) == (0, 0)
    assert results["splits"]["val"]["captions"] == 2 * splits.count("val")


def test_the_seed_of_a_holdout_without_shares_says_nothing(dataset):
    """It draws nothing: the corpus is the same, and named by the default's seed. With shares every seed is another corpus."""
    for entry in dataset.entries:
        del entry["split"]
    plain = dataset.save()
    prepare.run(plain)
    assert InputFolder(plain.output, "corpus").manifest.settings["holdout"] == {"shares": {}, "seed": 0}
    assert prepare.run(dataset.save(holdout={"seed": 1})).up_to_date
    drawn = dataset.save(holdout={"shares": {"val": 0.5}, "seed": 3})
    assert not prepare.run(drawn).up_to_date
    assert InputFolder(drawn.output, "corpus").manifest.settings["holdout"] == {"shares": {"val": 0.5}, "seed": 3}
    assert not prepare.run(dataset.save(holdout={"shares": {"val": 0.5}, "seed": 4})).up_to_date


def test_lists_and_packing_by_setting(dataset):
    """Lists go before the file's own splits; packed images need their folder no more."""
    (dataset.folder / "test.txt").write_text("3.png\n4\n")
    lists = {"test": dataset.folder / "test.txt", "train": "rest"}
    settings = dataset.save(files={"split_lists": lists}, pack=True)
    results = prepare.run(settings).results
    assert results["splits"] == {"train": {"images": 4, "captions": 8}, "test": {"images": 2, "captions": 4}}
    assert (settings.output / "packed" / "00000.parquet").is_file()
    corpus = Corpus(settings.output)
    assert corpus.original(4).content == picture(4)
    assert prepare.run(settings).up_to_date
    (dataset.folder / "test.txt").write_text("3.png\n")
    assert not prepare.run(settings).up_to_date


def test_the_earlier_name_of_the_group(dataset):
    """`karpathy` with annotations, images and restval_as_train still says the same."""
    group = {"annotations": str(dataset.annotations), "images": str(dataset.images)}
    old = PrepareSettings.model_validate({"source": "karpathy", "karpathy": group | {"restval_as_train": False}})
    assert old.files.paths == (dataset.annotations,)
    assert old.files.rename_splits == {}
    assert PrepareSettings.model_validate({"source": "karpathy", "karpathy": group}).files.rename_splits == {"restval": "train"}
    assert PrepareSettings.model_validate({"karpathy": None}).files is None
    with pytest.raises(ValidationError, match="karpathy"):
        PrepareSettings.model_validate({"karpathy": 5})
