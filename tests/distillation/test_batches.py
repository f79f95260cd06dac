"""Batches are a function of seed and step; every image once an epoch; positives are found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cprd_pipeline.corpus.reader import Split
from cprd_pipeline.distillation.batches import BatchRows, PairSampler, PositivePairs
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
    rows = BatchRows(np.array(images), np.array(captions))
    found = PositivePairs(split_of(pairs), captions=15).among(rows)
    assert found.tolist() == [[(image, caption) in pairs for caption in captions] for image in images]
