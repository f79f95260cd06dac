"""Which queries the gallery shows, and what its filters say of them."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.reporting.selection import groups_of, select
from cprd_pipeline.reporting.settings import GallerySettings
from cprd_pipeline.reporting.verdicts import Verdicts


def random_verdicts(count, seed):
    """As a run might have them, with a few queries that nothing is known of."""
    random = np.random.default_rng(seed)
    ranks = random.integers(0, 4, (2, count))
    ranks[:, random.random(count) < 0.1] = 0
    excess = np.where(random.random(count) < 0.1, np.nan, random.normal(-1, 1, count))
    return Verdicts(np.sort(random.integers(0, 2, count)), *ranks, random.uniform(-1, 1, count), excess, random.random(count) < 0.1)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 40), st.integers(0, 5))
def test_there_are_as_many_queries_as_wanted_and_none_twice(count, wanted, seed):
    """Of each direction; a query taken for a group belongs to it."""
    verdicts = random_verdicts(count, seed)
    groups = groups_of(verdicts)
    taken = select(verdicts, groups, GallerySettings(queries=wanted, seed=seed))
    rows = [row for found in taken.values() for row in found]
    assert len(rows) == len(set(rows))
    for number in (0, 1):
        available = int((verdicts.direction == number).sum())
        assert sum(verdicts.direction[row] == number for row in rows) == min(wanted, available)
    for group in groups:
        assert set(taken[group.key]) <= set(group.members.tolist())


def test_every_group_has_its_share():
    """Twenty of a large split are four of each kind; rare kinds give all they have, and the others share the rest."""
    verdicts = random_verdicts(2000, 1)
    taken = select(verdicts, groups_of(verdicts), GallerySettings(queries=20))
    assert {key: len(rows) for key, rows in taken.items()} == dict.fromkeys(taken, 8)
    rare = replace(verdicts, miner_rank=np.where(np.arange(2000) == 3, 2, 1), student_rank=np.ones(2000, dtype=np.int64))
    taken = select(rare, groups_of(rare), GallerySettings(queries=20))
    assert taken["fixed"] == [3]
    assert taken["broken"] == []
    assert min(len(taken[key]) for key in ("disagree", "false_negative", "random")) >= 12


def test_extremes_come_first_and_the_others_are_drawn():
    """The strongest disagreement and the largest lead are always shown; the fixed ones depend on the seed alone."""
    verdicts = random_verdicts(2000, 2)
    groups = groups_of(verdicts)
    first, again, other = (select(verdicts, groups, GallerySettings(queries=20, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first["fixed"] != other["fixed"]
    images = np.flatnonzero((verdicts.direction == 0) & verdicts.disagree)
    strongest = images[np.argsort(verdicts.agreement[images])][:3].tolist()
    assert set(strongest) <= {row for rows in first.values() for row in rows}
    leads = np.where(verdicts.direction == 1, np.nan_to_num(verdicts.excess, nan=-np.inf), -np.inf)
    assert int(leads.argmax()) in {row for rows in first.values() for row in rows}
