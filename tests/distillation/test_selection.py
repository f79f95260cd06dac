"""Choosing from several lists at once equals choosing from each list alone."""

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.distillation.selection import first_of_each, places, some_of_each

LENGTHS = st.lists(st.integers(0, 6), max_size=8)


def owners_of(lengths: list[int]) -> Rows:
    return np.repeat(np.arange(len(lengths)), lengths)


def lists_of(lengths: list[int]) -> list[slice]:
    return [slice(begin, end) for begin, end in pairwise(np.cumsum([0, *lengths]).tolist())]


@given(lengths=LENGTHS)
def test_places_count_from_the_beginning_of_each_list(lengths: list[int]) -> None:
    """Also where queries without a list lie between, and where there is no list at all."""
    expected = [place for length in lengths for place in range(length)]
    assert places(owners_of(lengths)).tolist() == expected


@given(lengths=LENGTHS, count=st.integers(0, 7))
def test_the_first_of_each_list_are_marked(lengths: list[int], count: int) -> None:
    """A shorter list is marked as a whole."""
    expected = [place < count for length in lengths for place in range(length)]
    assert first_of_each(owners_of(lengths), count).tolist() == expected


@given(lengths=LENGTHS, count=st.integers(0, 7), seed=st.integers(0, 2**31))
def test_as_many_of_each_list_are_drawn(lengths: list[int], count: int, seed: int) -> None:
    """No list gives more or fewer than it should, and the same generator draws the same."""
    owners = owners_of(lengths)
    chosen, again = (some_of_each(owners, count, np.random.default_rng(seed)) for _ in range(2))
    assert [int(chosen[inside].sum()) for inside in lists_of(lengths)] == [min(length, count) for length in lengths]
    assert chosen.tolist() == again.tolist()


def test_every_entry_of_a_list_is_as_likely() -> None:
    """Of 4,000 draws of 2 out of 5, each pair of the ten turns up about 400 times; the list beside it changes nothing."""
    random, drawn = np.random.default_rng(0), Counter[tuple[int, ...]]()
    for _ in range(4000):
        drawn[tuple(np.flatnonzero(some_of_each(owners_of([3, 5, 1]), 2, random)[3:8]).tolist())] += 1
    assert len(drawn) == 10
    assert max(abs(count - 400) for count in drawn.values()) < 100  # five standard deviations
