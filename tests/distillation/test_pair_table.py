"""The table of scored pairs equals a dictionary, in the promised order, however the pairs came and wherever blocks were cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.distillation import pair_table
from cprd_pipeline.distillation.pair_table import PairTable, PairTableBuilder, ScoredLists, row_blocks
from cprd_pipeline.distillation.turned_table import TurnedTable

ROWS, WIDTH = 7, 9
Pair = tuple[int, int, float, bool]
PAIRS = st.lists(
    st.tuples(st.integers(0, ROWS - 1), st.integers(0, WIDTH - 1), st.sampled_from([-1.5, -0.0, 0.0, 2.0, 7.25]), st.booleans()),
    max_size=60,
)


def table_of(pairs: list[Pair], chunk: int = 5) -> PairTable:
    """The pairs, some at a time."""
    building = PairTableBuilder(ROWS, WIDTH)
    chunks = [pairs[start : start + chunk] for start in range(0, len(pairs), chunk)]
    for part in chunks:
        building.count(np.array([pair[0] for pair in part], dtype=np.int64))
    for part in chunks:
        rows, items, scores, flagged = zip(*part, strict=True)
        building.place(np.array(rows), np.array(items), np.array(scores, dtype=np.float32), np.array(flagged))
    return building.finish()


def lists_of(table: ScoredLists, rows: list[int]) -> list[list[tuple[int, float, bool]]]:
    """The lists of some rows as Python lists."""
    found = table.of(np.array(rows, dtype=np.int64))
    lists: list[list[tuple[int, float, bool]]] = [[] for _ in rows]
    for owner, item, score, flagged in zip(*(column.tolist() for column in found), strict=True):
        lists[owner].append((item, score, flagged))
    return lists


def slow_lists(pairs: list[Pair], rows: list[int]) -> list[list[tuple[int, float, bool]]]:
    """The same by a dictionary: lower score, any flag; best first, ties by item."""
    known: dict[tuple[int, int], tuple[float, bool]] = {}
    for row, item, score, flagged in pairs:
        before = known.get((row, item), (score, False))
        known[row, item] = (min(score, before[0]), flagged or before[1])
    return [
        sorted(((i, *told) for (r, i), told in known.items() if r == row), key=lambda entry: (-entry[1], entry[0])) for row in rows
    ]


@given(pairs=PAIRS, asked=st.lists(st.integers(0, ROWS - 1), max_size=9), block=st.integers(1, 20))
@settings(deadline=None)
def test_lists_equal_those_of_a_dictionary(pairs: list[Pair], asked: list[int], block: int) -> None:
    """Whatever rows are asked, repeated or empty, for any order of the pairs and any size of blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_table, "_BLOCK_PAIRS", block)
        table = table_of(pairs)
        turned = TurnedTable.of_table(table)
    assert lists_of(table, asked) == slow_lists(pairs, asked)
    assert table.pairs == len({pair[:2] for pair in pairs})
    across = [
        (item, row, score, flagged) for row, items in enumerate(slow_lists(pairs, [*range(ROWS)])) for item, score, flagged in items
    ]
    assert lists_of(turned, [*range(WIDTH)]) == slow_lists(across, [*range(WIDTH)])
    assert (len(turned.starts), turned.pairs) == (WIDTH + 1, table.pairs)
    assert np.flatnonzero(table.named).tolist() == sorted({pair[1] for pair in pairs})
    assert np.flatnonzero(turned.named).tolist() == sorted({pair[0] for pair in pairs})


def test_types_are_the_small_ones() -> None:
    """Nine bytes a pair and four more for the other direction, and no memory of repeated pairs."""
    table = table_of([(0, 3, 1.0, False), (0, 3, 2.0, True), (6, 8, 1.0, False)])
    assert [array.dtype for array in (table.items, table.scores, table.flagged)] == [np.int32, np.float32, np.bool_]
    assert table.items.base is None
    assert TurnedTable.of_table(table).entries.dtype == np.int32
    assert table.starts.tolist() == [0, 1, 1, 1, 1, 1, 1, 2]


@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=30), most=st.integers(1, 15))
@settings(deadline=None)
def test_blocks_cover_all_rows_and_stay_small(lengths: list[int], most: int) -> None:
    """Every row once, in order; more pairs than allowed only where one row has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_table, "_BLOCK_PAIRS", most)
        blocks = [block.tolist() for block in row_blocks(np.append(0, np.cumsum(lengths)))]
    assert [row for block in blocks for row in block] == [*range(len(lengths))]
    assert all(len(block) == 1 or sum(lengths[row] for row in block) <= most for block in blocks)
