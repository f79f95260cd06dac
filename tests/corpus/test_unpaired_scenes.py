"""Unpaired pictures and captions of the demo world."""

import json

import pytest
from pydantic import ValidationError

from cprd_pipeline.corpus import prepare
from cprd_pipeline.corpus.checking import run_check
from cprd_pipeline.corpus.formats.generated import World
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.corpus.relevance import read_relevance
from cprd_pipeline.corpus.settings import ScenesSettings
from tests.corpus.conftest import files_of


def test_unpaired_items_come_after_all_others_and_change_none(scene_settings):
    """The other pictures and captions are the same rows; the new ones are a split of their own, without pairs."""
    plain = World(scene_settings().scenes).records
    grown = World(scene_settings(unpaired_images=5, unpaired_captions=4).scenes).records
    assert (grown.images[:20], grown.captions[:48]) == (plain.images, plain.captions)
    assert [(image.split, image.image_id) for image in grown.images[20:]] == [("unpaired", f"unpaired-{n:06d}") for n in range(5)]
    assert [(caption.split, caption.image_ids) for caption in grown.captions[48:]] == [("unpaired", ())] * 4
    assert len({image.stored for image in grown.images}) == 25
    assert len({caption.text for caption in grown.captions[48:]}) == 4
    more = World(scene_settings(unpaired_images=7, unpaired_captions=4).scenes).records
    assert [caption.text for caption in more.captions[48:]] == [caption.text for caption in grown.captions[48:]]


def test_a_corpus_with_unpaired_items(scene_settings):
    """The corpus is whole, the report and the check count them, and nothing is positive of them but by equal content."""
    settings = scene_settings(unpaired_images=5, unpaired_captions=4)
    report = prepare.run(settings)
    assert (report.results["unpaired_images"], report.results["unpaired_captions"]) == (5, 4)
    assert report.results["splits"]["unpaired"] == {"images": 5, "captions": 4}
    assert run_check(settings).results["splits"] == report.results["splits"]
    corpus = Corpus(settings.output)
    annotated = {corpus.captions.digests[caption].tobytes() for _, caption in corpus.positives[:48]}
    assert all(image < 20 or corpus.captions.digests[caption].tobytes() in annotated for image, caption in corpus.positives)


def test_without_unpaired_items_the_corpus_is_the_one_it_always_was(scene_settings):
    """Zero is no part of the manifest, so that finished corpora and what was made of them stay current."""
    prepare.run(scene_settings("one"))
    prepare.run(scene_settings("other", unpaired_images=0, unpaired_captions=0))
    one, other = (files_of(scene_settings(name).output) for name in ("one", "other"))
    assert one == other
    assert set(json.loads(one["_manifest.json"])["settings"]["scenes"]) == {"seed", "splits"}


def test_relevance_is_of_the_named_splits_alone(scene_settings):
    """Unpaired items are a split of their own, of which nobody asks for the true relevance."""
    splits = {"train": {"images": 12, "captions_each": 2, "relevance": True}}
    relevance = []
    for name, unpaired in (("plain", 0), ("grown", 3)):
        settings = scene_settings(name, splits=splits, unpaired_images=unpaired, unpaired_captions=2 * unpaired)
        prepare.run(settings)
        corpus = Corpus(settings.output)
        relevance.append(read_relevance(corpus, corpus.split("train")))
    assert (relevance[1] == relevance[0]).all()


def test_their_split_has_a_name_that_no_other_has():
    """The message names it."""
    with pytest.raises(ValidationError, match="unpaired items are the split unpaired, which splits has too"):
        ScenesSettings.model_validate({"splits": {"unpaired": {"images": 3}}, "unpaired_images": 1})
