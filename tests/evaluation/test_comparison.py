"""The command `compare`: differences as plain means, chance as the test says, seeds as one arm, and clear errors."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import cprd_pipeline.evaluation.run as stage
from cprd_pipeline.errors import SettingsError, StoreError
from cprd_pipeline.evaluation.comparison import FIGURES, _line, compare_models
from cprd_pipeline.evaluation.reality import Difference, Protocol
from cprd_pipeline.metrics.significance import Interval
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


def test_what_rounds_to_zero_has_no_minus():
    """Below the digits shown there is no worse."""
    shown = _line(Difference("i2t_mrr", 0.5, 0.4999, Interval(-0.0001, -0.0004, -0.04), 0.9), 0.9)
    assert shown.split() == ["0.500", "0.500", "+0.000", "[+0.000,", "-0.040]", "0.900"]


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


def test_another_split_is_refused(made, evaluated, settings_of, tmp_path):
    """Its results have nothing to pair, neither as two arms nor as two seeds of one."""
    settings = settings_of(made, split="train", rankings=None, output=tmp_path / "train", report=tmp_path / "r.json")
    stage.run(settings)
    corpus = made.corpus.digest[:8]
    message = (
        rf"base answered 14 i2t and 42 t2i queries of split 'test' of corpus {corpus}, "
        rf".*train:cprd 3 i2t and 9 t2i queries of split 'train' of corpus {corpus}; expected results of the same split"
    )
    for models in (["base", f"{settings.output}:cprd"], ["cprd", f"both=base,{settings.output}:cprd"]):
        with pytest.raises(StoreError, match=message):
            compare_models(models, evaluation=evaluated, protocol=PROTOCOL)


def test_another_corpus_with_the_same_ids_is_refused(made, evaluated, settings_of, tmp_path, monkeypatch):
    """Query ids alone do not tell whose results they are."""
    monkeypatch.setenv("CPRD_CACHE", str(tmp_path / "other-cache"))
    other = make_small_run(tmp_path / "other", text="c d 2")
    stage.run(settings := settings_of(other))
    ours, theirs = made.corpus.digest[:8], other.corpus.digest[:8]
    assert ours != theirs
    message = rf"base answered .*'test' of corpus {ours}, .*:base .*'test' of corpus {theirs}; expected .*same corpus; evaluate"
    with pytest.raises(StoreError, match=message):
        compare_models(["base", f"{settings.output}:base"], evaluation=evaluated, protocol=PROTOCOL)
