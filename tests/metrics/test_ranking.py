import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.metrics import ranking
from cprd_pipeline.metrics.positives import Positives
from cprd_pipeline.metrics.ranking import rank_both_directions, rank_positives
from tests.metrics.slow import positives_of, slow_ranks, slow_similarity, vectors


def slow_directions(images, captions, pairs):
    """Sorted ranks of the positives of each image and of each caption."""
    matrix = [[slow_similarity(image, caption) for caption in captions] for image in images]
    by_image = [slow_ranks(row, {c for i, c in pairs if i == image}) for image, row in enumerate(matrix)]
    columns = list(zip(*matrix, strict=True))
    return by_image, [slow_ranks(column, {i for i, c in pairs if c == caption}) for caption, column in enumerate(columns)]


def by_query(ranked):
    """Sorted ranks of each query."""
    offsets = ranked.positives.offsets[1:-1]
    return [sorted(ranks.tolist()) for ranks in np.split(ranked.ranks, offsets)]


def tiny_tiles(monkeypatch, rows, columns):
    """Tiles so small that a test has many."""
    monkeypatch.setattr(ranking, "_TILE_ROWS", rows)
    monkeypatch.setattr(ranking, "_TILE_COLUMNS", columns)


def test_ranks_by_hand_in_both_directions():
    """Each positive has its own rank among all items, beside its item; captions see the images the other way round."""
    images = vectors([1, 0], [0, 1])
    captions = vectors([0.6, 0.8], [1, 0], [0.8, 0.6], [0, 1])
    # Image 0 sees the captions in the order 1 2 0 3, image 1 in the order 3 0 2 1.
    i2t, t2i = rank_both_directions(images, captions, positives_of([(0, 0), (0, 2), (1, 1), (1, 3)], 2, 4))
    assert i2t.positives.items.tolist() == [0, 2, 1, 3]
    assert i2t.ranks.tolist() == [3, 2, 4, 1]
    assert t2i.positives.items.tolist() == [0, 1, 0, 1]
    assert t2i.ranks.tolist() == [2, 2, 1, 1]


def test_positives_that_tie_share_out_their_ranks():
    """Two equal positives tied with a negative take ranks 2 and 3, and the one behind them rank 4."""
    captions = vectors([0.5], [0.5], [0.5], [0.1])
    i2t, _ = rank_both_directions(vectors([1]), captions, positives_of([(0, 0), (0, 2), (0, 3)], 1, 4))
    assert sorted(i2t.ranks[:2].tolist()) == [2, 3]
    assert i2t.ranks[2] == 4


def test_a_query_without_positives_is_only_in_the_way():
    """An image nobody described ranks before a described one when it is more similar; nothing is ranked for it."""
    positives = positives_of([(1, 0)], 2, 2)
    i2t, t2i = rank_both_directions(vectors([1], [0.5]), vectors([1], [0.7]), positives)
    assert i2t.positives.answerable.tolist() == [1]
    assert t2i.positives.answerable.tolist() == [0]
    assert (i2t.ranks.tolist(), t2i.ranks.tolist()) == ([1], [2])


@given(data=st.data())
@settings(deadline=None)
def test_ranks_equal_a_slow_loop(data):
    """For small integers, full of ties, and any positives the ranks are those of the definition."""
    counts = [data.draw(st.integers(1, high)) for high in (6, 9)]
    width = data.draw(st.integers(1, 3))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    images, captions = (random.integers(-2, 3, (count, width)).astype(np.float32) for count in counts)
    pairs = sorted(data.draw(st.sets(st.tuples(*(st.integers(0, count - 1) for count in counts)))))
    ranked = rank_both_directions(images, captions, positives_of(pairs, *counts))
    assert [by_query(direction) for direction in ranked] == list(slow_directions(images, captions, pairs))


@pytest.mark.parametrize("tile", [(1, 1), (4, 9), (64, 3), (256, 4096)])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6])
def test_ranks_do_not_depend_on_the_tiles(monkeypatch, tile, spread):
    """Copies tie exactly and near copies are told apart however the products were cut, also for a nearly collapsed model."""
    random = np.random.default_rng(5)
    images = (1 + spread * random.normal(size=(23, 67))).astype(np.float32)
    captions = (1 + spread * random.normal(size=(40, 67))).astype(np.float32)
    captions[20:] = captions[:20]
    pairs = [(i, c) for i in range(23) for c in {i % 20, 20 + (7 * i) % 20, (3 * i) % 11}]
    tiny_tiles(monkeypatch, *tile)
    ranked = rank_both_directions(images, captions, positives_of(pairs, 23, 40))
    assert [by_query(direction) for direction in ranked] == list(slow_directions(images, captions, pairs))


def test_a_few_near_ties_among_many_other_items():
    """Items that only exact sums tell from the positive are put on its right side, in both directions."""
    random = np.random.default_rng(6)
    images, captions = (random.normal(size=(count, 67)).astype(np.float32) for count in (300, 300))
    for side in (images, captions):
        # The first 25 are one vector but for the last bits of a few of its numbers.
        steps = random.integers(-1, 2, size=(25, 67)) * (random.random((25, 67)) < 0.05)
        side[:25] = side[0] * (1 + steps * 2.0**-23).astype(np.float32)
    pairs = [(i, i) for i in range(300)]
    i2t, t2i = rank_both_directions(images, captions, positives_of(pairs, 300, 300))
    for row in range(25):
        assert i2t.ranks[row] == slow_ranks([slow_similarity(images[row], caption) for caption in captions], {row})[0]
        assert t2i.ranks[row] == slow_ranks([slow_similarity(image, captions[row]) for image in images], {row})[0]


def test_a_collapsed_model_gets_the_last_ranks():
    """A model that maps everything to one point looks worst, not best."""
    point = np.full((7, 5), 0.44, dtype=np.float32)
    i2t, t2i = rank_both_directions(point[:3], point, positives_of([(0, 0), (1, 4), (2, 6), (2, 5)], 3, 7))
    assert by_query(i2t) == [[7], [7], [6, 7]]
    assert by_query(t2i)[4:] == [[3], [3], [3]]


def test_one_direction_alone_gives_the_same_ranks():
    """Asking for one direction only changes nothing."""
    random = np.random.default_rng(2)
    images, captions = (random.normal(size=(count, 8)).astype(np.float32) for count in (30, 50))
    positives = positives_of([(i, (2 * i + k) % 50) for i in range(30) for k in range(3)], 30, 50)
    i2t, t2i = rank_both_directions(images, captions, positives)
    assert rank_positives(images, captions, positives).ranks.tolist() == i2t.ranks.tolist()
    assert rank_positives(captions, images, positives.transposed()).ranks.tolist() == t2i.ranks.tolist()


def test_embeddings_on_disk(tmp_path):
    """Memory-mapped embeddings give the ranks of those in memory."""
    random = np.random.default_rng(3)
    stored = []
    for name, count in (("images", 20), ("captions", 30)):
        np.save(tmp_path / f"{name}.npy", random.normal(size=(count, 6)).astype(np.float32))
        stored.append(tmp_path / f"{name}.npy")
    positives = positives_of([(i, i) for i in range(20)], 20, 30)
    mapped = rank_both_directions(*(np.load(path, mmap_mode="r") for path in stored), positives)
    loaded = rank_both_directions(*(np.load(path) for path in stored), positives)
    assert [one.ranks.tolist() for one in mapped] == [one.ranks.tolist() for one in loaded]


@pytest.mark.parametrize("spread", [1.0, 1e-7])
def test_memory_stays_in_tiles(spread):
    """Ranks of 1000 x 30000 items never hold the 120 MB matrix of their similarities, not even for a collapsed model."""
    random = np.random.default_rng(0)
    point = random.normal(size=4)
    queries, items = (point + spread * random.normal(size=(count, 4)) for count in (1000, 30_000))
    positives = Positives(np.arange(1001), random.integers(0, 30_000, 1000), 30_000)
    tracemalloc.start()
    rank_both_directions(queries.astype(np.float32), items.astype(np.float32), positives)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6, f"peak {peak / 1e6:.0f} MB"
