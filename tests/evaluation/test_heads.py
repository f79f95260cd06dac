"""Rankings that hold a part of the student's exact heads: refused when it is too little, told when it is not all."""

import json

import numpy as np
import pyarrow as pa
import pytest

import cprd_pipeline.evaluation.run as stage
from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import RANKINGS
from tests.evaluation.test_run import DIRECTIONS, each_query, results_of, slow_order, slow_rank
from tests.small_run import write_rankings

DEPTH = 10


def thinned(made, keep):
    """Rankings of whole lists from which only those candidates stay whose (direction, query id, rank by similarity) pass."""
    whole = InputFolder(write_rankings(made, made.root / "whole", k=1000), "rankings")
    writer = OutputWriter(
        made.root / "thinned", "rankings", whole.manifest.settings, whole.manifest.inputs | {"candidates": "part"}
    )
    for name in whole.part_names(""):
        rows = whole.table(name).to_pylist()
        for row in rows:
            ranks = np.argsort(np.argsort(-np.array(row["similarities"]), kind="stable")) + 1
            stays = [keep(row["direction"], row["query_id"], rank) for rank in ranks.tolist()]
            for column in ("candidate_ids", "teacher_scores", "similarities", "false_negative"):
                row[column] = [value for value, stay in zip(row[column], stays, strict=True) if stay]
        writer.write_table(name, pa.Table.from_pylist(rows, schema=RANKINGS))
    writer.finish()
    return writer.target


def first_rank(best):
    """As `filters.first_rank`."""
    return lambda direction, query, rank: rank >= best


def sampled(direction, query, rank):
    """As `sampler.kind: random`: every second one or so."""
    return np.random.default_rng([rank, *query.encode()]).random() < 0.5


@pytest.mark.parametrize(
    ("keep", "depth", "message"),
    [
        (first_rank(6), DEPTH, r"hold [3-5]\d\.\d% of what base ranks highest, and the best candidate of 0 of 14 i2t queries"),
        (first_rank(2), 30, r"hold 96\.\d% of what base ranks highest, and the best candidate of 0 of 14 i2t queries"),
        (sampled, DEPTH, r"hold [4-6]\d\.\d% of what base ranks highest, and the best candidate of \d+ of 14 i2t queries"),
    ],
)
def test_lists_of_other_than_the_most_similar_items_are_refused(made, settings_of, keep, depth, message):
    """Without the items that stand above it a positive would rise by itself: the teacher's figures would be far too high."""
    example = r" \('i\d\d' lacks 't\d\d-\d'\); expected at least 90% of both; mine this split with the sampler top, no filters"
    with pytest.raises(StoreError, match=message + example):
        stage.run(settings_of(made, rankings=thinned(made, keep), rerank_depth=depth))


def missed(direction, query, rank):
    """As an approximate index: a near item of a few queries is not found."""
    return rank != 4 or query[1:3] not in {"03", "10"}


def slow_partly_reranked(made, direction, query, items):
    """The base student's list; of its head what was scored sorted by the teacher, the rest where it was."""
    order, score = slow_order(made, "base", direction, query, items), made.row(made.teacher_scores, direction, query)
    positives = made.positives(direction, query)
    digests, queries = made.sides(direction)[1].digests, made.sides(direction)[0]
    contents = list(dict.fromkeys(bytes(digests[row]) for row in order if row not in positives))
    lost = {
        row
        for row in order
        if row not in positives and not missed(direction, queries.ids[query], contents.index(bytes(digests[row])) + 1)
    }
    head = order[:DEPTH]
    scored = iter(sorted((row for row in head if row not in lost), key=lambda row: (-score[row], row in positives)))
    return [row if row in lost else next(scored) for row in head] + order[DEPTH:]


def test_what_was_not_scored_keeps_its_place_and_is_told(made, settings_of):
    """An approximate index misses some: the teacher's figures stand, the share that they rest on beside them."""
    done = stage.run(settings := settings_of(made, rankings=thinned(made, missed), rerank_depth=DEPTH))
    found = {key: row["rank"] for key, row in results_of(settings, "teacher").items()}
    expected = {
        key: slow_rank(slow_partly_reranked(made, direction, query, items), made.positives(direction, query))
        for direction, query, key, items in each_query(made)
    }
    assert found == expected
    teacher = json.loads(settings.metrics.read_text())["teacher"]
    shares = [teacher[f"{direction}_head_scored"] for direction in DIRECTIONS]
    assert all(90 < share < 100 for share in shares)
    told = f"i2t {shares[0]:.1f} %, t2i {shares[1]:.1f} %; what is not keeps its place"
    assert ("heads scored", told) in done.table
    assert max(len(label) for label, _ in done.table) + 2 + max(len(value) for _, value in done.table) <= 80


@pytest.mark.parametrize("keep", [missed, first_rank(1)])
def test_nothing_enters_or_leaves_the_head(made, settings_of, keep):
    """Reranking ten items moves none across rank ten, so that R@10 is the student's own, whatever was mined."""
    stage.run(settings := settings_of(made, rankings=thinned(made, keep), rerank_depth=DEPTH))
    base, teacher = (
        [[rank <= DEPTH for rank in row["positive_ranks"]] for row in results_of(settings, name).values()]
        for name in ("base", "teacher")
    )
    assert base == teacher
    assert any(not all(row) for row in base)


def test_whole_heads_need_no_line(made, settings_of):
    """All of them scored: 100 in the metrics, nothing in the terminal."""
    done = stage.run(settings_of(made, rerank_depth=DEPTH))
    assert {done.results["metrics"]["teacher"][f"{direction}_head_scored"] for direction in DIRECTIONS} == {100.0}
    assert "heads scored" not in dict(done.table)
