"""A whole small study: its figures are those of the evaluation, its differences plain ones, its orders those of plain loops."""

import json
import shutil
from itertools import combinations

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from cprd_pipeline.errors import SettingsError, StoreError
from cprd_pipeline.evaluation.comparison import compare_models
from cprd_pipeline.evaluation.reality import Protocol
from cprd_pipeline.evaluation.study.run import run
from cprd_pipeline.evaluation.study.seeds import seed_difference
from cprd_pipeline.metrics.significance import holm
from tests.evaluation.study.small_study import ARMS, SEEDS, STEPS, cosine_at, write_student


@pytest.fixture(scope="session")
def results(finished):
    """Of the report."""
    return json.loads(finished.settings.report.read_text())["results"]


def arm_of(results, name):
    """Figures of one arm."""
    return next(arm for arm in results["arms"] if arm["name"] == name)


def metrics_of(study, split):
    """What `evaluate` found."""
    return json.loads((study.settings.folder / "evaluation" / split / "metrics.json").read_text())


def test_figures_are_those_of_the_evaluation(finished, results):
    """RSUM seed by seed on both splits, nDCG as means over the seeds, and the teacher's."""
    test, train = metrics_of(finished, "test"), metrics_of(finished, "train")
    for arm in ARMS:
        found = arm_of(results, arm)
        assert found["rsum"] == [test[f"{arm}-{seed}"]["rsum"] for seed in SEEDS]
        assert found["chosen_rsum"] == [train[f"{arm}-{seed}"]["rsum"] for seed in SEEDS]
        ndcg = [np.mean([test[f"{arm}-{seed}"][f"{side}_binary_ndcg10"] for seed in SEEDS]) for side in ("i2t", "t2i")]
        assert found["ndcg"] == pytest.approx(ndcg, abs=1e-4)
    assert [arm["name"] for arm in results["arms"]] == list(ARMS)
    assert results["teacher"]["rsum"] == test["teacher"]["rsum"]
    assert results["ndcg"] == "nDCG@10"


def test_differences_are_paired_by_seed(results):
    """Every arm with the reference and every claim, once each, with the interval and the corrected p of the differences."""
    found = {(one["more"], one["less"], one["by"]): one for one in results["comparisons"]}
    assert list(found) == [
        ("taught", "plain", "rsum"),
        ("wild", "plain", "rsum"),
        ("wild", "taught", "rsum"),
        ("taught", "wild", "gradient_cosine"),
    ]
    expected = []
    for (more, less, by), one in found.items():
        values = {arm: arm_of(results, arm)["rsum"] if by == "rsum" else results["cosines"][arm]["by_seed"] for arm in (more, less)}
        differences = np.subtract(values[more], values[less])
        assert one["by_seed"] == pytest.approx(differences, abs=1e-4)
        over = seed_difference(differences.tolist())
        assert (one["difference"], one["low"], one["high"]) == pytest.approx(over[:3], abs=1e-5)
        expected.append(over.p)
    assert [one["p"] for one in found.values()] == pytest.approx(holm(np.array(expected)), abs=1e-5)


def test_intervals_over_images_are_those_of_compare(finished, results):
    """The mean over seeds, query by query, against that of the other arm."""
    folder = finished.settings.folder / "evaluation" / "test"
    arms = [f"{arm}={','.join(f'{arm}-{seed}' for seed in SEEDS)}" for arm in ("plain", "taught")]
    same = compare_models(arms, folder, Protocol(finished.settings.replicates, 0)).results["comparisons"]["taught"]["rsum"]
    found = results["comparisons"][0]
    assert found["images"] == pytest.approx([same["low"], same["high"]], abs=1e-4)
    assert found["difference"] == pytest.approx(same["difference"], abs=1e-3)
    assert all(one["images"] is None for one in results["comparisons"] if one["by"] == "gradient_cosine")


def test_orders_are_those_of_plain_loops(finished, results):
    """By valid and rest, and by ranks, over both directions together."""
    bands = {"valid": (0, 3), "rest": (3, 99), "1-5": (0, 5), "6-10": (5, 10), "11-12": (10, 12)}
    assert results["bands"]["bands"] == list(bands)
    assert results["bands"]["truth"] is None
    rankings = {}
    for path in (finished.root / "rankings").glob("*.parquet"):
        rankings |= {(row["direction"], row["query_id"]): row["teacher_scores"] for row in pq.read_table(path).to_pylist()}
    for arm in ("taught", "wild"):
        lists = pq.read_table(finished.settings.folder / "evaluation" / "test" / f"lists-{arm}-1.parquet").to_pylist()
        for band, (first, last) in bands.items():
            signs = []
            for row in lists:
                teacher = rankings[row["direction"], row["query_id"]][first:last]
                own = row["candidate_similarities"][first:last]
                near = [(i, j) for i, j in combinations(range(len(own)), 2) if j - i <= 4]
                signs += [np.sign((teacher[i] - teacher[j]) * (own[i] - own[j])) for i, j in near]
            counted = np.array(signs)[np.array(signs) != 0]
            assert results["bands"]["arms"][arm][band][1] == pytest.approx(counted.mean(), abs=1e-6)


def test_cosines_are_means_of_the_logs(results):
    """Over seeds by step, over steps by seed; an arm that has none is left out."""
    assert set(results["cosines"]) == {"taught", "wild"}
    for arm, found in results["cosines"].items():
        assert found["steps"] == list(STEPS)
        assert found["mean"] == pytest.approx([np.mean([cosine_at(arm, seed, step) for seed in SEEDS]) for step in STEPS])
        assert found["by_seed"] == pytest.approx([np.mean([cosine_at(arm, seed, step) for step in STEPS]) for seed in SEEDS])


def test_distributions_are_of_the_same_pairs(finished, results):
    """Both sides of the random rankings."""
    tables = [pq.read_table(path) for path in (finished.root / "rankings").glob("*.parquet")]
    for name, column in (("teacher", "teacher_scores"), ("student", "similarities")):
        values = np.concatenate([table[column].combine_chunks().flatten().to_numpy() for table in tables]).astype(np.float64)
        standard = (values - values.mean()) / values.std()
        assert results["distributions"][name]["skewness"] == pytest.approx((standard**3).mean(), abs=1e-6)
        assert len(results["distributions"][name]["shares"]) == len(results["distributions"]["edges"]) - 1


def test_findings_say_what_came_out(results):
    """A claim that cannot be measured is called so; one that is clear shows, or its opposite does."""
    found = {one["text"]: one for one in results["findings"]}
    assert found["both pull together"]["verdict"] == "shows"
    assert found["plain pulls"]["verdict"] == "not measured"
    comparison = next(one for one in results["comparisons"] if (one["more"], one["less"]) == ("wild", "taught"))
    wanted = "the opposite shows" if comparison["p"] <= 0.05 else "does not show"
    assert found["noise helps"]["verdict"] == wanted
    assert comparison["difference"] < 0


def test_the_markdown_has_every_arm_and_every_seed(finished, results):
    """Tables with as many cells in every row as in their heading."""
    text = finished.settings.markdown.read_text()
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    rows = {line.split("|")[1].strip(): line for line in tables[0][2:]}
    for arm in results["arms"]:
        assert all(f"| {value:.1f} |" in rows[arm["label"]] for value in arm["rsum"])
    assert all(f"- {one['text']}: **{one['verdict']}**" in text for one in results["findings"])


def test_a_second_run_writes_the_same(finished, results, monkeypatch):
    """From the same students, the same numbers and bytes."""
    monkeypatch.setenv("CPRD_CACHE", str(finished.root.parent / "cache"))
    before = finished.settings.markdown.read_bytes()
    again = run(finished.settings)
    assert json.loads(json.dumps(again.results)) == results
    assert finished.settings.markdown.read_bytes() == before


def test_the_chosen_split_may_be_left_out(own):
    """Its column goes with it."""
    run(own.changed(chosen_on=None))
    assert "mean on" not in own.settings.markdown.read_text()
    assert not (own.settings.folder / "evaluation" / "train").exists()


def test_a_missing_student_is_said(own):
    """With the command that trains it."""
    shutil.rmtree(own.settings.student("taught", 2))
    with pytest.raises(StoreError, match=r"taught-2: there is no such folder; .*run `cprd-pipeline study --run`"):
        run(own.settings)


def test_missing_random_pairs_are_said(own):
    """With the command that scores them."""
    with pytest.raises(StoreError, match=r"nowhere: there is no such folder; .*run `cprd-pipeline study --run`"):
        run(own.changed(random_pairs=str(own.root / "nowhere")))


def test_arms_that_were_not_trained_alike_are_refused(own):
    """A student that was left over from other settings would make every difference meaningless."""
    write_student(own.made, own.settings, "wild", 1, weight=99, steps=40)
    with pytest.raises(StoreError, match=r"wild-1 and plain-1 differ in steps \(40 and 30\); expected arms that share"):
        run(own.settings)


def test_an_evaluation_without_rankings_is_refused(own):
    """There would be no order of the teacher."""
    values = yaml.safe_load((own.root / "evaluate.yaml").read_text())
    (own.root / "evaluate.yaml").write_text(yaml.safe_dump(values | {"rankings": None}))
    with pytest.raises(SettingsError, match=r"evaluate.yaml: rankings is null; expected the rankings of the split"):
        run(own.settings)
