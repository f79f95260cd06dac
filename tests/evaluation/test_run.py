"""The whole stage against plain loops over the full matrices."""

import json
import math

import numpy as np
import pytest

import cprd_pipeline.evaluation.run as stage
from cprd_pipeline.store.folder import InputFolder, cache_folder
from cprd_pipeline.store.report import read_report
from tests.small_run import write_rankings

DIRECTIONS = ("i2t", "t2i")


def results_of(settings, model):
    """(direction, query id) -> row of the per-query results."""
    rows = InputFolder(settings.output, "evaluation").table(f"queries-{model}.parquet").to_pylist()
    assert {row["model"] for row in rows} == {model}
    return {(row["direction"], row["query_id"]): row for row in rows}


def each_query(made):
    """Direction, query row, key of its results, and the item rows it chooses from."""
    for direction in DIRECTIONS:
        queries, items = made.sides(direction)
        for query in made.rows_of_split(queries):
            yield direction, query, (direction, queries.ids[query]), made.rows_of_split(items)


def slow_order(made, model, direction, query, items):
    """All items of the split by similarity; among equals those that are no positive first."""
    similarity, positives = made.row(made.similarities[model], direction, query), made.positives(direction, query)
    return sorted(items, key=lambda row: (-similarity[row], row in positives))


def slow_rank(order, positives):
    """Place of the first positive, other positives not counted before it."""
    wrong = 0
    for row in order:
        if row in positives:
            return wrong + 1
        wrong += 1
    raise AssertionError


def slow_reranked(made, direction, query, items, depth):
    """The head of the base student's list sorted by the teacher, then the rest."""
    order, score = slow_order(made, "base", direction, query, items), made.row(made.teacher_scores, direction, query)
    positives = made.positives(direction, query)
    return sorted(order[:depth], key=lambda row: (-score[row], row in positives)) + order[depth:]


def test_ranks_of_students_are_those_of_the_full_matrix(made, settings_of):
    """Every query of the split once per direction, several positives, copies of a picture or text each in its own place."""
    stage.run(settings := settings_of(made))
    for model in made.students:
        found = results_of(settings, model)
        expected = {
            key: slow_rank(slow_order(made, model, direction, query, items), made.positives(direction, query))
            for direction, query, key, items in each_query(made)
        }
        assert {key: row["rank"] for key, row in found.items()} == expected
        assert all(row["ndcg"] is None for row in found.values())


@pytest.mark.parametrize("depth", [10, 12])
def test_teacher_reranks_the_exact_head_of_the_base_student(made, settings_of, depth):
    """The head of the whole list, copies and positives included, in the teacher's order; the rest stays as it was."""
    stage.run(settings := settings_of(made, rerank_depth=depth))
    found = {key: row["rank"] for key, row in results_of(settings, "teacher").items()}
    expected = {
        key: slow_rank(slow_reranked(made, direction, query, items, depth), made.positives(direction, query))
        for direction, query, key, items in each_query(made)
    }
    assert found == expected
    base = {key: row["rank"] for key, row in results_of(settings, "base").items()}
    assert found != base


def test_ndcg_against_true_relevance(made, settings_of, monkeypatch):
    """Students and the teacher's reranking are measured against the graded relevance of the split, images by captions."""
    images, captions = made.corpus.images, made.corpus.captions
    image_rows, caption_rows = made.rows_of_split(images), made.rows_of_split(captions)
    relevance = np.random.default_rng(1).choice([0, 0.25, 0.5, 1], size=(len(image_rows), len(caption_rows))).astype(np.float32)
    full = np.zeros((len(images), len(captions)))
    full[np.ix_(image_rows, caption_rows)] = relevance
    monkeypatch.setattr(stage, "read_relevance", lambda corpus, split: relevance)
    stage.run(settings := settings_of(made))

    def slow_ndcg(order, gains, items):
        dcg = sum(gains[row] / math.log2(place + 2) for place, row in enumerate(order[:10]))
        return dcg / sum(
            g / math.log2(place + 2) for place, g in enumerate(sorted((gains[row] for row in items), reverse=True)[:10])
        )

    for model, key_matrix in (("cprd", made.similarities["cprd"]), ("teacher", made.teacher_scores)):
        found = results_of(settings, model)
        for direction, query, key, items in each_query(made):
            gains = (2 ** (4 * made.row(full, direction, query)) - 1) / 15
            head = slow_order(made, "base", direction, query, items)[:10] if model == "teacher" else items
            values = made.row(key_matrix, direction, query)
            order = sorted(head, key=lambda row: (-values[row], gains[row]))
            assert found[key]["ndcg"] == pytest.approx(slow_ndcg(order, gains, items), abs=1e-9), (model, key)


def test_similarities_of_the_rankings_items_are_kept_row_by_row(made, settings_of):
    """Each student's own similarities of candidates and positives, in the order of the rankings."""
    stage.run(settings := settings_of(made))
    rankings = InputFolder(settings.rankings, "rankings").tables("").to_pylist()
    for model in made.students:
        lists = InputFolder(settings.output, "evaluation").table(f"lists-{model}.parquet").to_pylist()
        for ranking, kept in zip(rankings, lists, strict=True):
            assert (ranking["query_id"], ranking["direction"]) == (kept["query_id"], kept["direction"])
            queries, items = made.sides(ranking["direction"])
            values = made.row(made.similarities[model], ranking["direction"], queries.row_of[ranking["query_id"]])
            for ids, column in (("candidate_ids", "candidate_similarities"), ("positive_ids", "positive_similarities")):
                assert kept[column] == [float(values[items.row_of[item]]) for item in ranking[ids]]


def test_metrics_follow_from_the_per_query_results(made, settings_of):
    """metrics.json, the report and the terminal say the same, computed here anew from the kept ranks."""
    done = stage.run(settings := settings_of(made))
    metrics = json.loads(settings.metrics.read_text())
    assert set(metrics) == {"base", "cprd", "teacher"}
    assert done.results["metrics"] == metrics == read_report(settings.report).results["metrics"]
    for model, figures in metrics.items():
        found = results_of(settings, model)
        recalls = []
        for direction in DIRECTIONS:
            ranks = [row["rank"] for (asked, _), row in found.items() if asked == direction]
            for k in (1, 5, 10):
                recalls.append(100 * sum(rank <= k for rank in ranks) / len(ranks))
                assert figures[f"{direction}_r{k}"] == pytest.approx(recalls[-1], abs=1e-4)
            assert figures[f"{direction}_mrr"] == pytest.approx(sum(1 / rank for rank in ranks) / len(ranks), abs=1e-4)
        assert figures["rsum"] == pytest.approx(sum(recalls), abs=1e-3)
        assert "i2t_ndcg10" not in figures
    assert metrics["cprd"]["rsum"] > metrics["base"]["rsum"]
    labels = [label for label, _ in done.table]
    assert [label for label in labels[1:7] if label] == ["base", "cprd", "teacher, top 10 of base"]
    assert max(len(label) for label in labels) + 2 + max(len(value) for _, value in done.table) <= 80


def test_without_rankings_students_alone_are_measured(made, settings_of):
    """No teacher's row, no lists; the students' figures are the same."""
    stage.run(settings_of(made))
    with_teacher = json.loads((made.root / "metrics.json").read_text())
    stage.run(settings := settings_of(made, rankings=None))
    alone = json.loads(settings.metrics.read_text())
    assert alone == {name: with_teacher[name] for name in made.students}
    assert InputFolder(settings.output, "evaluation").part_names("lists") == []


def test_a_second_run_does_nothing(made, settings_of):
    """No embedding is even read; a metrics file that DVC removed comes back."""
    first = stage.run(settings := settings_of(made))
    before = settings.metrics.read_bytes(), (settings.output / "_manifest.json").read_bytes()
    settings.metrics.unlink()
    for file in (cache_folder() / "embeddings").rglob("*.npy"):
        file.unlink()
    again = stage.run(settings)
    assert again.up_to_date
    assert not first.up_to_date
    assert again.results == first.results
    assert (settings.metrics.read_bytes(), (settings.output / "_manifest.json").read_bytes()) == before


def test_other_settings_or_inputs_are_evaluated_anew(made, settings_of):
    """Another depth, and other rankings at the same place, change the teacher's figures' identity."""
    stage.run(settings := settings_of(made))
    assert not stage.run(settings_of(made, rerank_depth=11)).up_to_date
    write_rankings(made, settings.rankings, k=13)
    assert not stage.run(settings_of(made, rerank_depth=11)).up_to_date
