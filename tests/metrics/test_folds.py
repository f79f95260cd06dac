from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.metrics.folds import folds_of, home_images
from tests.metrics.slow import positives_of


def test_folds_by_hand():
    """Five images in folds of two: the last image is left out with its captions, the caption of nobody too."""
    folds = folds_of(positives_of([(0, 0), (0, 3), (1, 1), (2, 5), (3, 2), (4, 4)], 5, 7), 2)
    assert [fold.images.tolist() for fold in folds.folds] == [[0, 1], [2, 3]]
    assert [fold.captions.tolist() for fold in folds.folds] == [[0, 1, 3], [2, 5]]
    assert folds.folds[0].positives.items.tolist() == [0, 2, 1]
    assert folds.folds[1].positives.items.tolist() == [1, 0]
    assert (folds.images_left_out, folds.captions_left_out) == (1, 2)


def test_equal_captions_stay_with_images_of_their_own_fold():
    """A text written for an image of each fold is one item in each fold, not two in one of them."""
    shared = [(0, 1), (0, 3), (1, 1), (1, 3)]
    folds = folds_of(positives_of([(0, 0), (1, 2), *shared], 2, 4), 1).folds
    assert [fold.captions.tolist() for fold in folds] == [[0, 1], [2, 3]]
    assert [fold.positives.items.tolist() for fold in folds] == [[0, 1], [0, 1]]


def test_equal_images_share_their_captions():
    """Two copies of an image, each with two captions that fit both, keep two captions each."""
    positives = positives_of([(image, caption) for image in (0, 1) for caption in range(4)], 2, 5)
    assert home_images(positives).tolist() == [0, 1, 0, 1, -1]


@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 11))), st.integers(1, 7))
@settings(deadline=None)
def test_folds_take_every_caption_to_its_home(pairs, size):
    """Folds are disjoint, each caption is a positive of an image of its fold, and everything is in a fold or counted."""
    positives = positives_of(sorted(pairs), 7, 12)
    found = folds_of(positives, size)
    images, captions = (list(chain(*(getattr(fold, side).tolist() for fold in found.folds))) for side in ("images", "captions"))
    assert images == list(range(7 - found.images_left_out))
    assert len(set(captions)) == len(captions) == 12 - found.captions_left_out
    for fold in found.folds:
        assert len(fold.images) == size
        inside = {
            (int(fold.images[q]), int(fold.captions[i])) for q, i in zip(fold.positives.queries, fold.positives.items, strict=True)
        }
        assert inside == {pair for pair in pairs if pair[0] in fold.images and pair[1] in fold.captions}
        assert {caption for _, caption in inside} == set(fold.captions.tolist())


def test_coco_has_five_folds():
    """5,000 images with five captions each give five folds of 1,000 by 5,000, nothing left out."""
    found = folds_of(positives_of(np.stack([np.arange(25_000) // 5, np.arange(25_000)], axis=1), 5000, 25_000), 1000)
    assert [(len(fold.images), len(fold.captions)) for fold in found.folds] == [(1000, 5000)] * 5
    assert (found.images_left_out, found.captions_left_out) == (0, 0)


def test_too_few_images_are_refused():
    """A set smaller than a fold has no mean over folds."""
    with pytest.raises(ValueError, match="3 images do not fill one fold of 4"):
        folds_of(positives_of([(0, 0)], 3, 1), 4)
