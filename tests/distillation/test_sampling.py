"""The batches of a run: what the settings ask for, told in the facts; what cannot be is an error."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.batches import PairSampler
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.sampling import Sampler, build_sampler
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.errors import CorpusError, SettingsError
from tests.distillation.made_corpus import corpus_of
from tests.distillation.made_knowledge import knowledge_of

PAIRED, EACH, UNPAIRED = 24, 2, 6


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """24 images with two captions each, six images and six captions without."""
    images, captions = PAIRED + UNPAIRED, EACH * PAIRED + UNPAIRED
    pairs = [(caption // EACH, caption) for caption in range(EACH * PAIRED)]
    return corpus_of(tmp_path / "corpus", [f"p{n}" for n in range(images)], [f"t{n}" for n in range(captions)], pairs)


def knowledge(corpus: Corpus) -> TeacherKnowledge:
    """Images of a group of six know each other's captions; unpaired item n knows pair n, and item n of the other side."""
    known = {(i, c): 1.0 + 0.1 * i - 0.01 * c for i in range(PAIRED) for c in range(EACH * PAIRED) if i // 6 == c // EACH // 6}
    for n in range(UNPAIRED):
        known |= {(PAIRED + n, EACH * n): 2.0, (n, EACH * PAIRED + n): 2.0, (PAIRED + n, EACH * PAIRED + n): 1.0}
    return knowledge_of(known, corpus.images.first_with_digest, corpus.captions.first_with_digest)


def build(corpus: Corpus, told: TeacherKnowledge | None = None, **values: Any) -> Sampler:
    settings = DistillSettings.model_validate({"rankings": ["data/rankings"], "batch_size": 8} | values)
    return build_sampler(settings, corpus, corpus.split("train"), told)


def test_by_default_batches_are_random_pairs(corpus: Corpus) -> None:
    """Exactly those of the pair sampler, with or without rankings."""
    sampler, plain = build(corpus, seed=3), PairSampler(corpus.split("train"), 8, 3)
    for step in range(7):
        for one, other in zip(sampler.batch(step), plain.batch(step), strict=True):
            assert np.array_equal(one, other)
    assert sampler.batches_per_epoch == 3
    assert sampler.image_rows.tolist() == [*range(PAIRED)]
    assert sampler.facts == {"pairs_of_a_batch": 8, "batches_per_epoch": 3}
    assert np.array_equal(build(corpus, knowledge(corpus), seed=3).batch(5).images, plain.batch(5).images)


def test_all_captions(corpus: Corpus) -> None:
    """An epoch of all captions is twice as long."""
    sampler = build(corpus, captions_per_image="all")
    assert sampler.batches_per_epoch == 6
    told = [caption for step in range(6) for caption in sampler.batch(step).captions.tolist()]
    assert sorted(told) == [*range(EACH * PAIRED)]


def test_neighbours(corpus: Corpus) -> None:
    """The facts tell the group size and the share; batches hold what they say."""
    told = knowledge(corpus)
    sampler = build(corpus, told, neighbours={"known_share": 0.5, "random_share": 0.0})
    facts = sampler.facts["neighbours"]
    assert set(facts) == {"group_size", "known_share", "random_known_share", "reached"}
    assert facts["reached"]
    shares = [(~np.isnan(told.among(sampler.batch(step)).i2t.scores_QN)).mean() for step in range(30)]
    assert np.mean(shares) == pytest.approx(facts["known_share"], abs=0.1)
    assert np.mean(shares) > 1.5 * facts["random_known_share"]


@pytest.mark.parametrize("neighbours", [0.0, 0.4])
def test_unpaired_queries_stand_last(corpus: Corpus, neighbours: float) -> None:
    """A quarter of each batch; they count as pairs unless positive is none; all rows that occur are announced."""
    told = knowledge(corpus)
    for positive in ("softmax", "none"):
        sampler = build(corpus, told, unpaired={"share": 0.25, "positive": positive}, neighbours={"known_share": neighbours})
        assert sampler.facts["pairs_of_a_batch"] == 6
        assert sampler.facts["unpaired"] == {
            "queries_of_a_batch": 2,
            "images": UNPAIRED,
            "captions": UNPAIRED,
            "without_candidates": 0,
            "below_floor": 0,
        }
        assert sampler.batches_per_epoch == 4
        seen = set()
        for step in range(60):
            rows = sampler.batch(step)
            assert len(rows.images) == len(rows.captions) == 8
            assert rows.paired.tolist() == [True] * 6 + [positive != "none"] * 2
            assert (rows.captions[:6] // EACH == rows.images[:6]).all()
            assert ((rows.images[6:] >= PAIRED) | (rows.captions[6:] >= EACH * PAIRED)).all()
            seen |= set(rows.images.tolist())
        assert seen == set(sampler.image_rows.tolist()) == {*range(PAIRED + UNPAIRED)}


def test_batches_depend_on_seed_and_step_alone(corpus: Corpus) -> None:
    """With everything switched on, in any order of asking."""
    values = {"unpaired": {"share": 0.25}, "neighbours": {"known_share": 0.4}, "captions_per_image": 2, "seed": 9}
    one, other = build(corpus, knowledge(corpus), **values), build(corpus, knowledge(corpus), **values)
    forward = [one.batch(step) for step in range(25)]
    backward = [other.batch(step) for step in reversed(range(25))][::-1]
    for rows, again in zip(forward, backward, strict=True):
        assert all(np.array_equal(column, same) for column, same in zip(rows, again, strict=True))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unpaired": {"share": 0.01}}, r"unpaired.share 0.01 is 0 of the 8 queries of a batch.*at least one and at most 7"),
        ({"unpaired": {"share": 0.99}}, r"unpaired.share 0.99 is 8 of the 8 queries of a batch"),
    ],
)
def test_settings_that_cannot_be(corpus: Corpus, values: dict[str, Any], message: str) -> None:
    """A batch needs pairs and, where asked for, unpaired queries."""
    with pytest.raises(SettingsError, match=message):
        build(corpus, **values)


def test_too_few_unpaired_items(corpus: Corpus) -> None:
    """A batch never holds a query twice."""
    with pytest.raises(CorpusError, match="split train has 12 unpaired items with a possible partner, a batch takes 14"):
        build(corpus, knowledge(corpus), batch_size=20, unpaired={"share": 0.7})


def test_unpaired_queries_may_lie_in_another_split(corpus: Corpus) -> None:
    """That split must be there; pairs still come from the one that is trained on."""
    with pytest.raises(CorpusError, match="split 'pool' has 0 images and 0 captions"):
        build(corpus, knowledge(corpus), unpaired={"share": 0.25, "split": "pool"})
    same = build(corpus, knowledge(corpus), unpaired={"share": 0.25, "split": "train"})
    plain = build(corpus, knowledge(corpus), unpaired={"share": 0.25})
    assert all((one == other).all() for one, other in zip(same.batch(3), plain.batch(3), strict=True))
