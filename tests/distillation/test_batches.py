"""Batches are a function of seed and step; every image once an epoch; positives are found."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.corpus.reader import Split
from cprd_pipeline.distillation.batches import BatchRows, Contents, PairSampler, PositivePairs
from cprd_pipeline.errors import CorpusError


def split_of(pairs: list[tuple[int, int]]) -> Split:
    positives = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Split("train", np.unique(positives[:, 0]), np.unique(positives[:, 1]), positives)


SPLIT = split_of([(image, 3 * image + caption) for image in range(10, 30) for caption in range(3)])


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 5), batch_size=st.integers(2, 20))
def test_every_image_at_most_once_an_epoch_with_one_of_its_captions(seed: int, epoch: int, batch_size: int) -> None:
    """An epoch holds distinct images, as many as fill whole batches, and each caption belongs to its image."""
    sampler = PairSampler(SPLIT, batch_size, seed)
    steps = range(epoch * sampler.batches_per_epoch, (epoch + 1) * sampler.batches_per_epoch)
    batches = [sampler.batch(step) for step in steps]
    images = np.concatenate([rows.images for rows in batches])
    assert len(set(images.tolist())) == len(images) == 20 // batch_size * batch_size
    annotated = {tuple(pair) for pair in SPLIT.positives.tolist()}
    assert all((i, c) in annotated for rows in batches for i, c in zip(rows.images, rows.captions, strict=True))


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    """Asking in another order, or from a fresh sampler, gives the same batch; another seed gives another."""
    first, second = PairSampler(SPLIT, 8, 1), PairSampler(SPLIT, 8, 1)
    forward = [first.batch(step) for step in range(9)]
    backward = [second.batch(step) for step in reversed(range(9))][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.captions, other.captions)
    assert not np.array_equal(PairSampler(SPLIT, 8, 2).batch(0).images, forward[0].images)


def test_all_captions_of_an_image_are_drawn_in_time() -> None:
    """Over many epochs each caption of each image turns up."""
    sampler = PairSampler(SPLIT, 10, 0)
    seen = {int(caption) for step in range(80) for caption in sampler.batch(step).captions}
    assert seen == set(SPLIT.captions.tolist())


UNEVEN = split_of([(image, 10 * image + caption) for image in range(23) for caption in range(1 + image % 5)])


@pytest.mark.parametrize(
    ("passes", "expected"), [(2, [23, 18]), (3, [23, 18, 13]), ("all", [23, 18, 13, 8, 4]), (9, [23, 18, 13, 8, 4])]
)
def test_each_pass_shows_another_caption(passes: int | Literal["all"], expected: list[int]) -> None:
    """Pass p holds the images with more than p captions, each once; no caption comes twice in an epoch."""
    sampler = PairSampler(UNEVEN, 4, 3, passes)
    assert sampler.batches_per_epoch == sum(count // 4 for count in expected)
    for epoch in range(2):
        steps = iter(range(epoch * sampler.batches_per_epoch, (epoch + 1) * sampler.batches_per_epoch))
        told: list[int] = []
        for number, count in enumerate(expected):
            batches = [sampler.batch(next(steps)) for _ in range(count // 4)]
            images = [image for rows in batches for image in rows.images.tolist()]
            assert len(set(images)) == len(images) == count // 4 * 4
            assert all(image % 5 >= number for image in images)
            assert all(
                caption // 10 == image for rows in batches for image, caption in zip(rows.images, rows.captions, strict=True)
            )
            told += [caption for rows in batches for caption in rows.captions.tolist()]
        assert len(set(told)) == len(told)


def test_several_passes_depend_on_seed_and_step_alone() -> None:
    """Asking in another order, or from a fresh sampler, gives the same batch; every caption turns up in time."""
    first, second = PairSampler(UNEVEN, 4, 1, "all"), PairSampler(UNEVEN, 4, 1, "all")
    forward = [first.batch(step).captions.tolist() for step in range(60)]
    assert forward == [second.batch(step).captions.tolist() for step in reversed(range(60))][::-1]
    assert {caption for captions in forward for caption in captions} == set(UNEVEN.captions.tolist())
    assert forward[0] != PairSampler(UNEVEN, 4, 2, "all").batch(0).captions.tolist()


def test_the_order_of_a_pass_can_be_arranged() -> None:
    """Each pass is handed its images; batches follow what comes back."""
    asked = []

    def backwards(places: np.ndarray, random: np.random.Generator) -> np.ndarray:
        asked.append((places.tolist(), random.integers(1 << 40)))
        return places[::-1]

    sampler = PairSampler(UNEVEN, 4, 1, 2, backwards)
    assert sampler.batch(0).images.tolist() == [22, 21, 20, 19]
    assert sampler.batch(5).images.tolist() == [22, 21, 19, 18]
    assert [places for places, _ in asked] == [[*range(23)], [place for place in range(23) if place % 5]]
    assert len({number for _, number in asked}) == 2


FORMER = [[[27, 24, 28, 20, 25], [81, 73, 86, 62, 75]], [[23, 18, 27, 29, 17], [69, 54, 81, 88, 53]]]


def test_one_caption_an_image_draws_what_it_always_drew() -> None:
    """Students of earlier versions are made again bit by bit: these are their batches."""
    sampler = PairSampler(SPLIT, 5, 7)
    found = [[sampler.batch(step).images.tolist(), sampler.batch(step).captions.tolist()] for step in (0, 6)]
    assert found == FORMER


def test_too_few_images_are_an_error() -> None:
    """The message names both numbers."""
    with pytest.raises(CorpusError, match="20 images with a caption, batch_size is 21"):
        PairSampler(SPLIT, 21, 0)


@given(data=st.data())
def test_positive_pairs_of_a_batch_equal_set_membership(data: st.DataObject) -> None:
    """The sorted look-up agrees with a Python set for any pairs and rows."""
    pairs = data.draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 14)), min_size=1, unique=True))
    images = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=8))
    captions = data.draw(st.lists(st.integers(0, 14), min_size=len(images), max_size=len(images)))
    rows = BatchRows.of_pairs(np.array(images), np.array(captions))
    found = PositivePairs(split_of(pairs), captions=15).among(rows)
    assert found.tolist() == [[(image, caption) in pairs for caption in captions] for image in images]


@given(data=st.data())
@settings(deadline=None)
def test_positive_pairs_of_any_rows(data: st.DataObject) -> None:
    """All pairs of two lists, and single pairs, by rows or by contents, agree with a Python set; empty lists too."""
    pairs = data.draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 14)), unique=True))
    images, captions = data.draw(st.lists(st.integers(0, 9), max_size=8)), data.draw(st.lists(st.integers(0, 14), max_size=9))
    same = data.draw(st.sampled_from([1, 3]))
    contents = Contents(np.arange(10) // same * same, np.arange(15) // same * same) if same > 1 else None
    positives = PositivePairs(split_of(pairs), 15, contents)
    known = {(image // same, caption // same) for image, caption in pairs}
    expected = np.array([[(i // same, c // same) in known for c in captions] for i in images]).reshape(len(images), len(captions))
    rows = np.array(images, dtype=np.int64), np.array(captions, dtype=np.int64)
    assert np.array_equal(positives.known(*rows), expected)
    assert np.array_equal(positives.are(rows[0][:, None], rows[1][None, :]), expected)
