"""Positives closed over equal content, duplicates and leaks, against slow loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cprd_pipeline.corpus.closure import Content, close_positives, count_duplicates, count_leaks
from cprd_pipeline.errors import CorpusError

contents = st.lists(st.builds(Content, st.sampled_from([b"a", b"b", b"c"]), st.sampled_from(["train", "val"])), max_size=7)


@given(contents, contents, st.data())
def test_closure_equals_a_slow_loop(images, captions, data):
    """A pair of one split is positive exactly when some annotated pair has the same two contents."""
    pairs = [(i, c) for i in range(len(images)) for c in range(len(captions)) if images[i].split == captions[c].split]
    annotated = data.draw(st.lists(st.sampled_from(pairs), unique=True) if pairs else st.just([]))
    expected = [
        (i, c)
        for i, c in pairs
        if any(images[i].digest == images[j].digest and captions[c].digest == captions[d].digest for j, d in annotated)
    ]
    found = close_positives(images, captions, annotated)
    assert found.tolist() == [list(pair) for pair in expected]
    assert set(annotated) <= set(expected)
    assert np.array_equal(close_positives(images, captions, map(tuple, found.tolist())), found)


@given(contents)
def test_duplicates_and_leaks_equal_slow_loops(items):
    """A duplicate has a twin further up in its split; a leak is a content seen in two splits."""
    assert count_duplicates(items) == sum(item in items[:row] for row, item in enumerate(items))
    leaked = {a.digest for a in items for b in items if a.digest == b.digest and a.split != b.split}
    assert count_leaks(items) == len(leaked)


def test_other_captions_of_a_text_twin_are_not_drawn_in():
    """Two pictures share one text: each gets both ids of that text, neither gets the other's second caption."""
    images = [Content(b"x", "train"), Content(b"y", "train")]
    captions = [Content(b"same", "train"), Content(b"x only", "train"), Content(b"same", "train"), Content(b"y only", "train")]
    annotated = [(0, 0), (0, 1), (1, 2), (1, 3)]
    assert close_positives(images, captions, annotated).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 2], [1, 3]]


def test_a_text_that_stands_everywhere_is_refused_before_its_pairs_are_made():
    """Ten thousand pictures with one text would be a hundred million positives: the text is named, and what it makes."""
    count = 10_000
    images = [Content(row.to_bytes(4, "big"), "train") for row in range(count)]
    captions = [Content(b"no title", "train")] * count + [Content(row.to_bytes(4, "big"), "train") for row in range(count)]
    annotated = [(row % count, row) for row in range(2 * count)]
    with pytest.raises(
        CorpusError, match=r"20,000 annotated.* make 100,010,000 positives.*, 100,000,000 of .* content of 'no title'"
    ):
        close_positives(images, captions, annotated, name_caption=lambda row: "'no title'" if row < count else "'other'")


def test_a_placeholder_picture_is_refused_by_name():
    """One picture under many ids, each with texts of its own."""
    captions = [Content(b"%d" % row, "train") for row in range(300)]
    images = [Content(b"placeholder", "train")] * 300 + [Content(b"other", "train")]
    annotated = [(row, row) for row in range(300)] + [(300, 0)]
    with pytest.raises(CorpusError, match=r"make 90,001 positives.* 90,000 of them the content of image i0; .*at most 10 for each"):
        close_positives(images, captions, annotated, allowed=1000, name_image="image i{}".format)


def test_the_bound_follows_the_annotated_pairs():
    """Exactly ten for each is fine; a small corpus may have any share."""
    images, captions = [Content(b"x", "train")] * 10, [Content(b"t", "train")] * 10
    annotated = [(row, row) for row in range(10)]
    assert len(close_positives(images, captions, annotated, allowed=0)) == 100
    with pytest.raises(CorpusError, match="at most 10 for each"):
        close_positives(images, captions, annotated[:9], allowed=99)
    assert len(close_positives(images, captions, annotated[:9], allowed=100)) == 100
