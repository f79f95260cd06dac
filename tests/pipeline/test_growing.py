"""A corpus that grows by a tenth: what was embedded and scored before is neither embedded nor scored again."""

import deltalake
import numpy as np
import polars as pl
import pytest

from cprd_pipeline.corpus import prepare
from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.mining import run as mining
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.scoring import run as scoring
from cprd_pipeline.store.folder import InputFolder, cache_folder
from tests.corpus.conftest import Dataset, picture
from tests.scoring.stub import StubTeacher, score_settings, stub_folder
from tests.tiny_encoders import tiny_clip

IMAGES, CAPTIONS_EACH, NEW = 20, 2, 2


class Run:
    """prepare, mine and score-teacher in a folder; counts what goes through the models."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.dataset = Dataset(folder / "data", IMAGES, CAPTIONS_EACH)
        for entry in self.dataset.entries:
            entry["split"] = "train"
        self.encoder = tiny_clip(folder / "clip")
        stub_folder(folder / "stub")
        self.embedded = {"images": 0, "captions": 0}
        images, texts = DualEncoder.embed_images, DualEncoder.embed_texts

        def count_images(model, pixels):
            self.embedded["images"] += len(pixels)
            return images(model, pixels)

        def count_texts(model, **tokens):
            self.embedded["captions"] += len(tokens["input_ids"])
            return texts(model, **tokens)

        monkeypatch.setattr(DualEncoder, "embed_images", count_images)
        monkeypatch.setattr(DualEncoder, "embed_texts", count_texts)

    def go(self, **changes):
        """All three stages; the pairs that the teacher was asked for, as (pixels, text)."""
        self.embedded.update(images=0, captions=0)
        StubTeacher.seen.clear()
        prepare.run(self.dataset.save(output=self.folder / "corpus", **changes))
        mining.run(
            MineSettings(
                corpus=self.folder / "corpus",
                encoder=str(self.encoder),
                output=self.folder / "candidates",
                report=self.folder / "mine.json",
                k=5,
                device="cpu",
                dtype="float32",
            )
        )
        scoring.run(score_settings(self.folder))
        return list(StubTeacher.seen)

    def wanted(self):
        """(pixels, text) of every pair of the rankings."""
        corpus = Corpus(self.folder / "corpus")
        with ImageReader(corpus) as reader:
            pixels = {image_id: reader.read(row).tobytes() for image_id, row in corpus.images.row_of.items()}
        texts = {caption_id: corpus.texts[row] for caption_id, row in corpus.captions.row_of.items()}
        return {
            (pixels[query], texts[item]) if row["direction"] == "i2t" else (pixels[item], texts[query])
            for row in InputFolder(self.folder / "rankings", "rankings").tables("").to_pylist()
            for query in [row["query_id"]]
            for item in row["candidate_ids"] + row["positive_ids"]
        }

    def grow(self):
        """New pictures in front of the old ones, so that every row moves."""
        more = Dataset(self.folder / "more", NEW, CAPTIONS_EACH)
        for number, entry in enumerate(more.entries):
            entry["filename"] = f"new-{number}.png"
            entry["imgid"] += IMAGES
            entry["split"] = "train"
            for sentence in entry["sentences"]:
                sentence |= {"raw": f"new {sentence['raw']}", "sentid": sentence["sentid"] + 1000, "imgid": entry["imgid"]}
            (self.dataset.images / entry["filename"]).write_bytes(picture(100 + number))
        self.dataset.entries = more.entries + self.dataset.entries


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Nothing is done yet."""
    return Run(tmp_path, monkeypatch)


def stored():
    """Every row of the score store."""
    return pl.DataFrame(pl.from_arrow(deltalake.DeltaTable(cache_folder() / "scores").to_pyarrow_table()))


def digests(folder):
    """Digest of each id, images and captions."""
    corpus = Corpus(folder / "corpus")
    return {
        (side, name): digest.tobytes()
        for side, items in (("image", corpus.images), ("caption", corpus.captions))
        for name, digest in zip(items.ids, items.digests, strict=True)
    }


@pytest.mark.parametrize("packed_later", [False, True])
def test_old_items_cost_nothing_when_the_corpus_grows(run, packed_later):
    """Of 22 pictures two are embedded; the teacher sees the new pairs alone; packing the files changes no digest."""
    first = run.go()
    before, scores = digests(run.folder), stored()
    assert run.embedded == {"images": IMAGES, "captions": IMAGES * CAPTIONS_EACH}
    assert sorted(first) == sorted(run.wanted())

    run.grow()
    second = run.go(pack=packed_later)
    after = digests(run.folder)
    assert {key: after[key] for key in before} == before
    assert len(after) == len(before) + NEW * (1 + CAPTIONS_EACH)
    assert run.embedded == {"images": NEW, "captions": NEW * CAPTIONS_EACH}
    wanted = run.wanted()
    assert len(set(second)) == len(second)
    assert set(second) == wanted - set(first)
    assert len(wanted & set(first)) > len(wanted) / 2, "hardly a pair could be reused, so that nothing is tested"
    assert len(stored()) == len(first) + len(second)
    assert len(stored().join(scores, on=scores.columns, how="semi")) == len(first)


def test_the_same_corpus_again_costs_nothing_at_all(run):
    """Also when its output was deleted, as DVC does."""
    run.go()
    (run.folder / "corpus").rename(run.folder / "away")
    assert run.go() == []
    assert run.embedded == {"images": 0, "captions": 0}
    assert np.array_equal(Corpus(run.folder / "corpus").positives, Corpus(run.folder / "away").positives)
