"""Whole trainings that are watched: what they log, which student they keep, when they stop, and that watching moves no weight."""

import csv
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cprd_pipeline.distillation.checkpoints import Checkpoints
from cprd_pipeline.distillation.evaluation import Evaluator
from cprd_pipeline.distillation.run import run
from tests.distillation.test_run import files, logged, project, settings  # noqa: F401  a fixture

EVALUATED = {"eval_steps": 1, "eval_split": "train"}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """RSUM of each evaluation, in their order; real figures are flat in so short a training."""
    values: list[float] = []
    measure, seen = Evaluator.measure, []

    def told(self: Evaluator, *arguments: Any) -> dict[str, float]:
        found = measure(self, *arguments)
        seen.append(found)
        return found | {"eval_rsum": values[len(seen) - 1]}

    monkeypatch.setattr(Evaluator, "measure", told)
    return values


@pytest.mark.parametrize("ema", [0, 0.9])
def test_watching_moves_no_weight(project: Path, ema: float) -> None:  # noqa: F811
    """Evaluations and cosines on the way, the last student kept: the same weights as without; all of it is logged."""
    plain = run(settings(output="data/students/plain", ema=ema))
    report = run(settings(output="data/students/watched", **EVALUATED | {"eval_steps": 4}, cosine_steps=3, ema=ema))
    watched = project / "data/students/watched"
    for name, tensor in weights(project / "data/students/plain").items():
        assert torch.equal(tensor, weights(watched)[name])
    rows = logged(report, project)
    assert [row["step"] for row in rows] == [2, 3, 4, 6]
    assert [row["step"] for row in rows if "eval_rsum" in row] == [4, 6]
    assert [row["step"] for row in rows if "gradient_cosine" in row] == [3, 6]
    assert all(-1 <= row["gradient_cosine"] <= 1 for row in rows if "gradient_cosine" in row)
    recalls = [f"eval_{direction}_r{k}" for direction in ("i2t", "t2i") for k in (1, 5, 10)]
    assert rows[-1]["eval_rsum"] == pytest.approx(sum(rows[-1][name] for name in recalls))
    reports = project / "data/reports"
    assert [row["step"] for row in rows_of(reports / "distill_eval.csv")] == ["4", "6"]
    assert float(rows_of(reports / "distill_eval.csv")[0]["eval_rsum"]) == rows[2]["eval_rsum"]
    assert [row["step"] for row in rows_of(reports / "distill_cosine.csv")] == ["3", "6"]
    assert report.results["best"] == max((rows[2], rows[3]), key=lambda row: row["eval_rsum"])
    assert plain.results["best"] is None


def test_the_best_student_is_the_one_of_a_training_that_ended_there(project: Path, scripted: list[float]) -> None:  # noqa: F811
    """Best at step 4 of 6: those are the weights that are saved, and a run that keeps the last saves others."""
    scripted += [100.0, 200.0, 150.0] * 2
    report = run(settings(output="data/students/best", eval_steps=2, eval_split="train", keep="best"))
    last = run(settings(output="data/students/last", eval_steps=2, eval_split="train", keep="last"))
    assert report.results["best"]["step"] == 4
    assert last.results["best"]["step"] == 4
    assert dict(report.table)["evaluated on train"] == "RSUM 200.0 at step 4"
    assert dict(last.table)["evaluated on train"] == "RSUM 150.0 at step 6; best RSUM 200.0 at step 4"
    assert "while training: RSUM 200.0 at step 4\n" in (project / "data/students/best/README.md").read_text()
    kept = []
    save = Checkpoints.save

    def watched(self: Checkpoints, step: int, state: dict[str, Any]) -> None:
        kept.append({name: tensor.clone() for name, tensor in state["average"].items()})
        save(self, step, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", watched)
        run(settings(output="data/students/again"))
    best, final = (weights(project / f"data/students/{name}") for name in ("best", "last"))
    for name, tensor in best.items():
        assert torch.equal(tensor, kept[1][name])
    assert all(torch.equal(tensor, kept[2][name]) for name, tensor in final.items())
    assert any(not torch.equal(best[name], final[name]) for name in best)


@pytest.mark.parametrize(("ema", "lost"), [(0.99, 3), (0, 5)])
def test_a_run_that_broke_after_a_better_evaluation_ends_with_the_same_bytes(
    project: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    ema: float,
    lost: int,
) -> None:
    """Best weights are on disk that no checkpoint knows; the resumed run finds its own way to the same folder."""
    values = EVALUATED | {"keep": "best", "checkpoint_steps": 2, "ema": ema}
    figures = {1: 1.0, 2: 3.0, 3: 5.0, 4: 2.0, 5: 6.0, 6: 4.0}
    measure, steps = Evaluator.measure, [0]

    def told(self: Evaluator, *arguments: Any) -> dict[str, float]:
        steps[0] += 1
        return measure(self, *arguments) | {"eval_rsum": figures[steps[0]]}

    def broken(self: Checkpoints, step: int, weights: dict[str, Any]) -> None:
        save_best(self, step, weights)
        if step == lost:
            raise KeyboardInterrupt

    monkeypatch.setattr(Evaluator, "measure", told)
    save_best = Checkpoints.save_best
    monkeypatch.setattr(Checkpoints, "save_best", broken)
    with pytest.raises(KeyboardInterrupt):
        run(settings(output="data/students/broken", **values))
    monkeypatch.setattr(Checkpoints, "save_best", save_best)
    (state,) = (Path(os.environ["CPRD_CACHE"]) / "state" / "student").glob("*/checkpoints")
    assert (state / f"best-{lost:09d}.pt").exists()
    steps[0] = 2 * ((lost - 1) // 2)
    run(settings(output="data/students/broken", **values))
    steps[0] = 0
    whole = run(settings(output="data/students/whole", **values))
    assert whole.results["best"]["step"] == 5
    assert files(project / "data/students/broken") == files(project / "data/students/whole")


def test_training_stops_when_patience_ends(project: Path, scripted: list[float]) -> None:  # noqa: F811
    """Two evaluations no better than the first: the fourth step is not done; a log row is there although none was due."""
    scripted += [3.0, 3.0, 2.0]
    report = run(settings(**EVALUATED, patience=2, log_steps=50))
    assert report.results["steps"] == 3
    assert report.results["stopped_early"]
    assert dict(report.table)["stopped early"] == "2 evaluations brought nothing better"
    assert [row["step"] for row in logged(report, project)] == [1, 2, 3]


def test_a_training_whose_patience_ends_with_its_steps_did_not_stop_early(project: Path, scripted: list[float]) -> None:  # noqa: F811
    """The last evaluation is one too many, but all steps were done."""
    scripted += [3.0, 2.0]
    report = run(settings(eval_steps=4, eval_split="train", eval_metric="t2i_r5", patience=1))
    assert report.results["steps"] == 6
    assert not report.results["stopped_early"]
    best = report.results["best"]
    assert dict(report.table)["evaluated on train"].count(f"RSUM {best['eval_rsum']:.1f}, t2i R@5 {best['eval_t2i_r5']:.1f} %") == 1


def test_collapsed_targets_are_announced_once_and_reported(project: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    """A temperature that leaves one item of each list, against the default."""
    report = run(settings(output="data/students/cold", cprd={"teacher_temperature": 1e-3}))
    assert capsys.readouterr().err.count("the teacher's targets have collapsed") == 1
    assert report.results["teacher_targets"]["collapsed"]
    assert dict(report.table)["teacher's targets"].startswith("COLLAPSED")
    report = run(settings(output="data/students/warm"))
    assert "collapsed" not in capsys.readouterr().err
    assert not report.results["teacher_targets"]["collapsed"]
    assert report.results["teacher_targets"]["top_share"] < 0.9


@pytest.mark.parametrize("objective", ["cprd", "kl", "listnet"])
def test_a_bank_without_random_items_is_warned_of(project: Path, capsys: pytest.CaptureFixture[str], objective: str) -> None:  # noqa: F811
    """In the demo such students collapsed; ListNet has no easy negatives to choose."""
    told = {"output": "data/students/banked", "objective": objective, "items": "bank"}
    run(settings(**told))
    assert capsys.readouterr().err.count(f"set {objective}.easy_negatives to bank") == (objective != "listnet")
    if objective != "listnet":
        run(settings(**told, **{objective: {"easy_negatives": "bank"}}))
        assert "easy_negatives" not in capsys.readouterr().err


def test_the_report_tells_the_speed(project: Path) -> None:  # noqa: F811
    """Pairs a second and the share of waiting, and a line for them."""
    report = run(settings(objective="itc"))
    assert report.results["pairs_per_s"] > 0
    assert 0 < report.results["waiting_share"] < 1
    assert "pairs/s" in dict(report.table)["speed"]
    assert report.results["teacher_targets"] is None
