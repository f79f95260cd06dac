"""Figures of rankings read part by part: those of all lists at once by plain NumPy, wherever the parts are cut."""

import weakref
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.metrics.agreement import kendall_tau
from cprd_pipeline.scoring import summary
from cprd_pipeline.scoring.quantiles import Quantiles
from cprd_pipeline.scoring.summary import summarise
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import CANDIDATES, RANKINGS

SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
# Ties, both zeros, numbers whose bits differ in one half only, and large ones.
FLOATS = st.sampled_from([0.0, -0.0, 1.0, 1.0000001, -1.0, -1.0000001, 1e30, -1e30, 1e-40]) | st.floats(-9, 9, width=32)
LISTS = st.tuples(st.lists(st.tuples(FLOATS, FLOATS), max_size=5), st.lists(FLOATS, max_size=2), st.integers(0, 5))

Query = tuple[Sequence[tuple[float, float]], Sequence[float], int]
"""Teacher score and similarity of each candidate that was kept, scores of the positives, and the number of valid candidates."""


def write(folder: Path, directions: dict[str, list[Query]], cuts: Sequence[int], dropped: int) -> tuple[InputFolder, InputFolder]:
    """Rankings and candidates, cut before these queries; `dropped` candidates of each query are in no ranking."""
    rankings, candidates = (OutputWriter(folder / kind, kind, {"name": folder.name}, {}) for kind in ("rankings", "candidates"))
    for direction, queries in directions.items():
        edges = [0, *sorted(cut for cut in set(cuts) if 0 < cut < len(queries)), len(queries)]
        for number, (start, stop) in enumerate(pairwise(edges)):
            for writer, schema in ((rankings, RANKINGS), (candidates, CANDIDATES)):
                rows = [_row(direction, query, schema, dropped) for query in queries[start:stop]]
                writer.write_table(f"{direction}-{number:05d}.parquet", pa.Table.from_pylist(rows, schema=schema))
    rankings.finish()
    candidates.finish()
    return InputFolder(folder / "rankings", "rankings"), InputFolder(folder / "candidates", "candidates")


def _row(direction: str, query: Query, schema: pa.Schema, dropped: int) -> dict[str, Any]:
    listed, positives, n_valid = query
    row: dict[str, Any] = {field.name: [] if pa.types.is_list(field.type) else 0 for field in schema}
    row |= {"query_id": "q", "direction": direction, "similarities": [similarity for _, similarity in listed]}
    if schema is CANDIDATES:
        row["similarities"] += [0.0] * dropped
    else:
        row |= {"teacher_scores": [score for score, _ in listed], "positive_scores": list(positives), "n_valid": n_valid}
    return row


def figures(directions: dict[str, list[Query]], cuts: Sequence[int], dropped: int = 0) -> dict[str, Any]:
    """Of a folder with these queries."""
    with TemporaryDirectory() as name:
        return summarise(*write(Path(name), directions, cuts, dropped), 0.5)


def plain_figures(queries: list[Query], dropped: int) -> dict[str, Any]:
    """Of one direction, by all its arrays at once."""
    scores, similarities = (np.array([pair[side] for listed, _, _ in queries for pair in listed], "f4") for side in (0, 1))
    positives = np.array([score for _, found, _ in queries for score in found], "f4")
    best = [np.float32(max(found, default=np.inf)) for _, found, _ in queries]
    asked = sum(1 for _, found, _ in queries if found)
    beaten = sum(any(np.float32(score) > top for score, _ in listed) for top, (listed, _, _) in zip(best, queries, strict=True))
    above = [
        np.float32(score) > top + np.float32(0.5) for top, (listed, _, _) in zip(best, queries, strict=True) for score, _ in listed
    ]
    lost, mined = dropped * len(queries), dropped * len(queries) + len(scores)
    lengths = np.array([len(listed) for listed, _, _ in queries], dtype=np.int64)
    return {
        "queries": len(queries),
        "candidates": len(scores),
        "queries_without_positive": len(queries) - asked,
        "first_is_no_positive": round(beaten / asked, 6) if asked else None,
        "false_negatives": sum(above) + lost,
        "false_negative_share": round((sum(above) + lost) / mined, 6) if mined else None,
        "dropped": lost,
        "valid": sum(n_valid for _, _, n_valid in queries),
        "queries_without_valid": sum(n_valid == 0 for _, _, n_valid in queries),
        "kendall_tau": kendall_tau(lengths, similarities, scores),
        "score_quantiles": {
            side: dict(zip(map(str, SHARES), [round(float(q), 5) for q in np.quantile(values.astype("f8"), SHARES)], strict=True))
            if len(values)
            else None
            for side, values in (("positives", positives), ("candidates", scores))
        },
    }


@settings(deadline=None, max_examples=30)
@given(
    st.dictionaries(st.sampled_from(["i2t", "t2i"]), st.lists(LISTS, min_size=1, max_size=8)),
    st.lists(st.integers(1, 7)),
    st.integers(0, 2),
)
def test_figures_do_not_depend_on_the_parts(directions: dict[str, list[Query]], cuts: list[int], dropped: int) -> None:
    """Several parts, one part and plain NumPy agree in every digit, without queries, scores or positives too."""
    found = figures(directions, cuts, dropped)
    assert found == figures(directions, [], dropped)
    assert found["directions"] == {name: plain_figures(queries, dropped) for name, queries in directions.items()}
    sides = {
        "positives": [score for queries in directions.values() for _, scores, _ in queries for score in scores],
        "candidates": [pair[0] for queries in directions.values() for listed, _, _ in queries for pair in listed],
    }
    every = np.array([score for scores in sides.values() for score in scores], dtype=np.float32)
    if not len(every):
        assert found["histogram"] is None
        return
    edges = np.histogram_bin_edges(every.astype(np.float64), 60)
    counts = {side: np.histogram(np.array(scores, "f4"), edges)[0].tolist() for side, scores in sides.items()}
    assert found["histogram"] == {"edges": edges.tolist(), **counts}


def test_agreement_is_that_of_lists_spread_over_all_parts() -> None:
    """More lists than are looked at, some too short to have an order: the same mean as of all at once."""
    draws = np.random.default_rng(0)
    queries = [([*zip(*draws.random((2, row % 4)).astype("f4").tolist(), strict=True)], [0.0], 0) for row in range(4001)]
    found = figures({"t2i": queries}, range(0, 4001, 170))["directions"]["t2i"]
    assert found == plain_figures(queries, 0)
    assert found["kendall_tau"] not in {None, 0.0}


def test_one_part_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its ids: no whole table is read."""
    alive: weakref.WeakSet[summary._Lists] = weakref.WeakSet()
    make = summary._Lists.__init__

    def made(self: summary._Lists, folder: InputFolder, name: str) -> None:
        assert not alive
        make(self, folder, name)
        alive.add(self)

    monkeypatch.setattr(summary._Lists, "__init__", made)
    monkeypatch.delattr(InputFolder, "table")
    queries = [([(0.5, 0.5)], [1.0], 1)] * 9
    assert figures({"i2t": queries, "t2i": queries}, [2, 3, 8])["directions"]["t2i"]["candidates"] == 9


@settings(deadline=None)
@given(st.lists(st.lists(FLOATS, max_size=20), max_size=5), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_quantiles_are_those_of_numpy(parts: list[list[float]], shares: list[float]) -> None:
    """To the last bit, whatever the shares."""
    arrays = [np.array(part, dtype=np.float32) for part in parts]
    found = Quantiles(shares)
    for see in (found.count, found.locate):
        for array in arrays:
            see(array)
    every = np.concatenate([np.empty(0, "f8"), *arrays])
    assert found.results() == (np.quantile(every, shares).tolist() if len(every) else None)
