import numpy as np
import pytest

from cprd_pipeline.metrics.similarities import error_bound, pair_similarities, similarity_blocks, tile_similarities
from tests.metrics.slow import slow_similarity


def all_pairs(queries, items):
    """`pair_similarities` of everything with everything."""
    rows = np.repeat(np.arange(len(queries)), len(items)), np.tile(np.arange(len(items)), len(queries))
    return pair_similarities(queries, items, *rows).reshape(len(queries), len(items))


@pytest.mark.parametrize("spread", [1.0, 1e-7])
def test_tiles_hold_the_similarities_of_pairs(spread):
    """A whole tile has the very bits of the pairs, and those are the exact sums rounded once."""
    random = np.random.default_rng(0)
    point = random.normal(size=33)
    queries, items = ((point + spread * random.normal(size=(count, 33))).astype(np.float32) for count in (20, 30))
    tile = tile_similarities(queries, items)
    assert (tile == all_pairs(queries, items)).all()
    assert (tile == [[slow_similarity(query, item) for item in items] for query in queries]).all()


def test_sums_halfway_between_two_numbers_are_left_to_the_pairs():
    """Near 1 + 2^-24, between two float32 numbers, the order of a float64 sum decides which way it is rounded."""
    random = np.random.default_rng(2)
    queries, items = (2.0**-27 * random.normal(size=(40, 64)) for _ in range(2))
    for side in (queries, items):
        side[:, 0], side[:, 40] = 1, 2.0**-12
    queries, items = queries.astype(np.float32), items.astype(np.float32)
    assert (tile_similarities(queries, items) == all_pairs(queries, items)).all()


def test_fast_similarities_lie_within_the_bound():
    """No float32 product is further from the pair's similarity than `error_bound` says."""
    random = np.random.default_rng(1)
    queries, items = (random.normal(size=(count, 64)).astype(np.float32) for count in (40, 50))
    exact = all_pairs(queries, items)
    for block, similarities in similarity_blocks(queries, items):
        assert (np.abs(similarities - exact[block]) <= error_bound(queries, items)).all()
