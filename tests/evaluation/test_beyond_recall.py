"""Figures over all positives, folds, intervals, clear winners, agreement with the teacher, and files for other tools."""

import csv
import json

import numpy as np
import pytest
import pytrec_eval

import cprd_pipeline.evaluation.run as stage
from cprd_pipeline.errors import CorpusError, StoreError
from cprd_pipeline.evaluation.agreement import agreement
from cprd_pipeline.evaluation.outcomes import RECALLS, outcome_of
from cprd_pipeline.evaluation.reality import Protocol, clear_winners, compare, intervals
from cprd_pipeline.metrics.significance import holm
from cprd_pipeline.store.folder import InputFolder
from tests.evaluation.test_run import DIRECTIONS, each_query, slow_order


def outcome(settings, model):
    """Of a finished run."""
    return outcome_of(InputFolder(settings.output, "evaluation").table(f"queries-{model}.parquet"))


def test_figures_over_all_positives_are_those_of_the_full_order(made, settings_of):
    """MAP@R, R-precision and the ranks of all positives against plain loops; the teacher's row has them too."""
    stage.run(settings := settings_of(made))
    metrics = json.loads(settings.metrics.read_text())
    rows = InputFolder(settings.output, "evaluation").table("queries-cprd.parquet").to_pylist()
    kept = {(row["direction"], row["query_id"]): row for row in rows}
    found = {direction: {"map_r": [], "r_precision": []} for direction in DIRECTIONS}
    for direction, query, key, items in each_query(made):
        order, positives = slow_order(made, "cprd", direction, query, items), made.positives(direction, query)
        ranks = [place + 1 for place, row in enumerate(order) if row in positives]
        assert sorted(kept[key]["positive_ranks"]) == ranks
        relevant = [row in positives for row in order[: len(positives)]]
        precision = [sum(relevant[: n + 1]) / (n + 1) for n in range(len(relevant))]
        found[direction]["map_r"].append(sum(p for p, hit in zip(precision, relevant, strict=True) if hit) / len(positives))
        found[direction]["r_precision"].append(sum(relevant) / len(positives))
    for direction in DIRECTIONS:
        for name, values in found[direction].items():
            assert metrics["cprd"][f"{direction}_{name}"] == pytest.approx(100 * np.mean(values), abs=1e-3)
            assert f"{direction}_{name}" in metrics["teacher"]


def test_run_files_give_another_tool_the_same_figures(made, settings_of):
    """pytrec_eval reads runs and relevance and agrees on R@10 and MRR, query by query."""
    stage.run(settings := settings_of(made, trec_depth=50))
    for direction in DIRECTIONS:
        with (settings.output / f"qrels-{direction}.txt").open() as file:
            relevance = pytrec_eval.parse_qrel(file)
        with (settings.output / f"run-cprd-{direction}.txt").open() as file:
            run = pytrec_eval.parse_run(file)
        theirs = pytrec_eval.RelevanceEvaluator(relevance, {"success", "recip_rank"}).evaluate(run)
        ours = next(one for one in outcome(settings, "cprd").directions if one.direction == direction)
        assert sorted(theirs) == sorted(ours.query_ids)
        for query, r10, mrr in zip(ours.query_ids, ours.values["r10"], ours.values["mrr"], strict=True):
            assert theirs[query]["success_10"] == r10 / 100
            assert theirs[query]["recip_rank"] == pytest.approx(mrr)


def test_folds_are_means_over_smaller_test_sets(made, settings_of):
    """Two folds of seven images: easier than the whole, counted, and refused when the split is too small."""
    done = stage.run(settings_of(made, folds=7))
    figures = done.results["metrics"]["cprd"]
    assert figures["folds_count"] == len(made.rows_of_split(made.corpus.images)) // 7
    assert figures["folds_rsum"] > figures["rsum"]
    assert {f"folds_{name}" for name in RECALLS} < set(figures)
    with pytest.raises(CorpusError, match=r"the split has 14 images; expected at least one fold of 1,000; lower folds"):
        stage.run(settings_of(made, folds=1000))


def test_intervals_hold_the_figures_and_shrink_with_certainty(made, settings_of):
    """Each figure lies in its interval; the same seed gives the same ends; lower confidence gives a narrower one."""
    done = stage.run(settings := settings_of(made))
    for model, figures in done.results["metrics"].items():
        for name, (low, high) in done.results["intervals"][model].items():
            assert low <= figures[name] <= high, (model, name)
    base = outcome(settings, "base")
    wide, narrow = (intervals(base, Protocol(500, 1, confidence)) for confidence in (0.99, 0.5))
    assert wide == intervals(base, Protocol(500, 1, 0.99))
    assert wide["rsum"][1] - wide["rsum"][0] > narrow["rsum"][1] - narrow["rsum"][0] > 0


def test_only_what_chance_cannot_explain_stands_out(made, settings_of):
    """A model against itself wins nothing; where the other is clearly better it is named, by tests corrected together."""
    stage.run(settings := settings_of(made))
    base, cprd = outcome(settings, "base"), outcome(settings, "cprd")
    protocol = Protocol(2000, 0)
    assert clear_winners([base, base], protocol, RECALLS) == {}
    assert clear_winners([base], protocol, RECALLS) == {}
    tests = compare(base, cprd, protocol, RECALLS)
    adjusted = holm(np.array([one.p for one in tests]))
    expected = {one.figure: "cprd" if one.right > one.left else "base" for one, p in zip(tests, adjusted, strict=True) if p <= 0.05}
    assert clear_winners([base, cprd], protocol, RECALLS) == expected
    assert expected["t2i_r1"] == "cprd"


def test_agreement_is_between_the_students_order_and_the_teachers(made, settings_of):
    """A student that is the teacher agrees wholly, its reverse not at all; bands cut the teacher's order."""
    done = stage.run(settings := settings_of(made))
    assert done.results["agreement"]["cprd"]["i2t"]["kendall_tau"] > done.results["agreement"]["base"]["i2t"]["kendall_tau"]
    rankings = stage.Rankings(settings.rankings, made.corpus, made.corpus.split("test")).direction("i2t")
    lists = InputFolder(settings.output, "evaluation").table("lists-cprd.parquet")
    lists = lists.filter(np.array([value == "i2t" for value in lists["direction"].to_pylist()]))
    column = lists.schema.get_field_index("candidate_similarities")
    offsets = lists["candidate_similarities"].combine_chunks().offsets
    for sign, tau in ((1, 1.0), (-1, -1.0)):
        own = type(lists["candidate_similarities"].combine_chunks()).from_arrays(offsets, sign * rankings.candidates.teacher_scores)
        found = agreement(lists.set_column(column, "candidate_similarities", own), rankings, Protocol(200, 0))
        assert found["kendall_tau"] == pytest.approx(tau, abs=0.02)
        assert [band["from"] for band in found["bands"]] == [1, 6, 11]
        assert (found["ndcg10"] == pytest.approx(100.0)) == (sign == 1)
        for name in ("kendall_tau", "ndcg10"):
            low, high = found[f"{name}_interval"]
            assert low - 1e-4 <= found[name] <= high + 1e-4


def test_a_student_of_another_corpus_is_refused(made, settings_of, tmp_path):
    """Its manifest says what it was trained on; who wants it says so."""
    manifest = {"kind": "student", "settings": {}, "inputs": {"corpus": "f" * 32}, "parts": [], "schema_version": 2}
    (tmp_path / "cprd" / "_manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=r"student cprd: trained on another corpus \(ffffffff\); expected .*other_corpus=allow"):
        stage.run(settings_of(made))
    assert "cprd" in stage.run(settings_of(made, other_corpus="allow")).results["metrics"]


def test_plots_show_the_figures_of_the_metrics(made, settings_of):
    """The CSV beside the report has a row a model, every figure of metrics.json that all have."""
    stage.run(settings := settings_of(made))
    metrics = json.loads(settings.metrics.read_text())
    with settings.report.with_name("evaluate_results.csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["base", "cprd", "teacher"]
    for model, figures in metrics.items():
        shared = {name: value for name, value in figures.items() if name in metrics["base"]}
        assert {name: float(rows[model][name]) for name in shared} == shared
