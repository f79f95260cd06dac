"""Positives closed over equal content, duplicates and leaks, against slow loops."""

from hypothesis import given
from hypothesis import strategies as st

from cprd_pipeline.corpus.closure import Content, close_positives, count_duplicates, count_leaks

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
    assert found == expected
    assert set(annotated) <= set(found)
    assert close_positives(images, captions, found) == found


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
    assert close_positives(images, captions, annotated) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (1, 3)]
