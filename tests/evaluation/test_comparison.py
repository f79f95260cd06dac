"""The command `compare`: differences as plain means, chance as the test says, seeds as one arm, and clear errors."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import cprd_pipeline.evaluation.run as stage
from cprd_pipeline.errors import SettingsError, StoreError
from cprd_pipeline.evaluation.comparison import FIGURES, compare_models
from cprd_pipeline.evaluation.reality import Protocol
from tests.small_run import make_small_run

PROTOCOL = Protocol(1000, 0)


@pytest.fixture
def evaluated(made, settings_of) -> Path:
    """The folder of a finished evaluation."""
    settings = settings_of(made)
    stage.run(settings)
    return settings.output


def test_differences_are_those_of_the_reported_figures(made, settings_of, evaluated):
    """Each figure of both models and their difference; the interval holds it; corrected p-values are no smaller."""
    metrics = json.loads(settings_of(made).metrics.read_text())
    found = compare_models(["base", "cprd", "teacher"], evaluation=evaluated, protocol=PROTOCOL)
    assert found.results["reference"] == "base"
    for model in ("cprd", "teacher"):
        rows = found.results["comparisons"][model]
        assert list(rows) == list(FIGURES)
        for name, row in rows.items():
            assert row["first"] == pytest.approx(metrics["base"][name], abs=1e-4)
            assert row["second"] == pytest.approx(metrics[model][name], abs=1e-4)
            assert row["difference"] == pytest.approx(row["second"] - row["first"], abs=1e-9)
            assert row["low"] <= row["difference"] <= row["high"]
            assert 0 < row["p"] <= row["p_holm"] <= 1
    assert max(len(label) for label, _ in found.table) + 2 + max(len(value) for _, value in found.table) <= 80


def test_a_model_is_no_better_than_itself(evaluated):
    """No difference, p of 1, nothing in bold."""
    found = compare_models(["a=base", "b=base"], evaluation=evaluated, protocol=PROTOCOL)
    assert all((row["difference"], row["p"]) == (0, 1) for row in found.results["comparisons"]["b"].values())
    assert not any("**" in value for _, value in found.table)


def test_seeds_are_one_arm_with_mean_and_spread(made, settings_of, evaluated, tmp_path):
    """LABEL=MODEL,FOLDER:MODEL averages query by query, and shows mean and standard deviation of RSUM."""
    metrics = json.loads(settings_of(made).metrics.read_text())
    shutil.copytree(evaluated, tmp_path / "second")
    found = compare_models(["base", f"both=cprd,{tmp_path / 'second'}:base"], evaluation=evaluated, protocol=PROTOCOL)
    both = [metrics[model]["rsum"] for model in ("cprd", "base")]
    mean, deviation, seeds = found.results["seeds"]["both"]["rsum"]
    assert (mean, deviation, seeds) == (pytest.approx(np.mean(both)), pytest.approx(np.std(both, ddof=1)), 2)
    assert found.results["comparisons"]["both"]["rsum"]["second"] == pytest.approx(np.mean(both), abs=1e-3)
    assert ("both over 2 seeds", f"RSUM {mean:.1f}, standard deviation {deviation:.1f}") in found.table


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        (["base"], SettingsError, "base to compare; expected two different models or more"),
        (["base", "base"], SettingsError, "expected two different models"),
        (["base", "nobody"], StoreError, "no model 'nobody' in it; expected one of base, cprd, teacher"),
        (["base", "nowhere:cprd"], StoreError, "nowhere: there is no such folder"),
    ],
)
def test_what_cannot_be_compared_is_said(evaluated, models, error, message):
    """One line that names it."""
    with pytest.raises(error, match=message):
        compare_models(models, evaluation=evaluated, protocol=PROTOCOL)


def test_other_queries_are_refused(evaluated, settings_of, tmp_path, monkeypatch):
    """Results of another split or corpus have nothing to pair."""
    monkeypatch.setenv("CPRD_CACHE", str(tmp_path / "other-cache"))
    other = make_small_run(tmp_path / "other", text="c d 2")
    settings = settings_of(other, split="train", rankings=None)
    stage.run(settings)
    with pytest.raises(StoreError, match=r"base and .*base answered other i2t queries \(14 and 3\); expected results of the same"):
        compare_models(["base", f"{settings.output}:base"], evaluation=evaluated, protocol=PROTOCOL)
