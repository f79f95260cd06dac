"""What a sampler promises beyond the slow loop: odds, spread, and draws that depend on nothing but seed, query and item."""

import numpy as np
import pytest

from cprd_pipeline.mining.draws import item_keys, query_keys, uniform
from cprd_pipeline.mining.samplers import choose
from cprd_pipeline.mining.settings import SamplerSettings
from cprd_pipeline.store.fingerprint import bytes_digest, stack_digests

QUERIES = 20_000


def draws_of(items: int, queries: int = QUERIES, seed: int = 0) -> np.ndarray:
    """Random numbers of every query and item, [Q, items]."""
    ids = [f"query {number}" for number in range(queries)]
    keys = item_keys(stack_digests(bytes_digest(bytes([item])) for item in range(items)))
    owners, columns = np.divmod(np.arange(queries * items), items)
    return uniform(query_keys(seed, ids)[owners], keys[columns]).reshape(queries, items)


def shares(sampler: SamplerSettings, similarities: list[float], k: int) -> np.ndarray:
    """How often each of a pool's items is taken, over many queries with the same pool."""
    count = len(similarities)
    draws = draws_of(count)
    owners = np.repeat(np.arange(QUERIES), count)
    taken = choose(sampler, k, owners, np.tile(np.float32(similarities), QUERIES), draws.ravel())
    assert (taken.reshape(QUERIES, count).sum(axis=1) == k).all()
    return taken.reshape(QUERIES, count).mean(axis=0)


def test_random_takes_every_item_of_the_pool_equally_often() -> None:
    """Whatever its similarity; within four standard errors."""
    found = shares(SamplerSettings(kind="random"), [0.9, 0.5, 0.4, -0.2, -0.8], 2)
    assert np.abs(found - 2 / 5).max() < 4 * np.sqrt(0.4 * 0.6 / QUERIES)


def test_softmax_takes_the_first_with_the_odds_of_the_softmax() -> None:
    """With k 1 the shares are the softmax of similarity over temperature; a hot one is uniform, a cold one the top."""
    similarities = [0.5, 0.4, 0.1]
    for temperature in (0.1, 0.5):
        odds = np.exp(np.array(similarities) / temperature)
        expected = odds / odds.sum()
        found = shares(SamplerSettings(kind="softmax", temperature=temperature), similarities, 1)
        assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / QUERIES)
    assert shares(SamplerSettings(kind="softmax", temperature=1e-4), similarities, 2).tolist() == [1, 1, 0]


def test_a_spread_reaches_every_range_of_similarity() -> None:
    """A crowd of near items does not crowd out the few far ones: each range gives its share."""
    crowd = [*np.linspace(1.0, 0.95, 30), 0.6, 0.3, 0.0]
    found = shares(SamplerSettings(kind="similarity", strata=4), crowd, 4)
    assert found[30:].tolist() == [1, 1, 1]
    assert found[:30].sum() == pytest.approx(1)
    assert found[:30].max() < 0.06


def test_draws_are_uniform_and_belong_to_seed_query_and_item() -> None:
    """No draw depends on who else is there; another seed gives others; mean and spread are a uniform distribution's."""
    draws = draws_of(8)
    np.testing.assert_array_equal(draws_of(3, queries=50), draws[:50, :3])
    assert not np.isin(draws_of(8, seed=1), draws).any()
    assert draws.min() > 0
    assert draws.max() < 1
    assert draws.mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * draws.size))
    assert np.corrcoef(draws.T)[np.triu_indices(8, 1)] == pytest.approx(0, abs=5 / np.sqrt(QUERIES))
    assert np.histogram(draws, 16, (0, 1))[0] == pytest.approx(draws.size / 16, rel=0.05)


def test_pools_without_items_are_no_trouble() -> None:
    """A query whose pool is empty takes nothing, and neither does a part of such queries."""
    nothing, none = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    for kind in ("top", "random", "softmax", "similarity"):
        sampler = SamplerSettings(kind=kind)
        assert choose(sampler, 3, nothing, none, np.empty(0)).tolist() == []
        assert choose(sampler, 3, np.array([4]), np.float32([0.5]), np.array([0.5])).tolist() == [True]
