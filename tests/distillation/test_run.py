"""The stage `distill`: what it writes, that it resumes with the same bits, what it refuses."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModel, AutoTokenizer

import cprd_pipeline.models.scene_student  # noqa: F401  registers the student's class
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation import learner
from cprd_pipeline.distillation.run import run
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.errors import MachineError, ModelError, StoreError
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.report import StageReport
from tests.distillation.conftest import every_pair_rankings, write_rankings
from tests.tiny_encoders import tiny_clip, tiny_two_towers

TOY: dict[str, Any] = {
    "batch_size": 8,
    "steps": 6,
    "warmup_steps": 2,
    "checkpoint_steps": 2,
    "log_steps": 2,
    "distillation_from_step": 0,
    "device": "cpu",
    "augmentation": {"shift_pixels": 1, "noise": 5, "channel_gain": 0.1, "brightness": 0.1, "word_dropout": 0.2},
}


@pytest.fixture
def project(tmp_path: Path, write_corpus: Callable[[Path], Corpus], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a corpus and rankings, and the working folder."""
    corpus = write_corpus(tmp_path / "data" / "corpus")
    write_rankings(tmp_path / "data" / "rankings" / "1", every_pair_rankings(corpus, 12), corpus)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(**changes: Any) -> DistillSettings:
    values = {**TOY, "rankings": ["data/rankings/1"], **changes}
    if values.get("objective") == "itc":
        del values["rankings"]
    return DistillSettings.model_validate(values)


def files(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.blake2b(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("objective", ["itc", "cprd", "kl", "margin_mse", "listnet", "listmle", "ranknet"])
def test_every_objective_trains_and_leaves_a_folder_that_loads(project: Path, objective: str) -> None:
    """Weights move, the log has its rows, the folder loads with one call, and the same again gives the same bytes."""
    report = run(settings(objective=objective, output="data/students/a"))
    again = run(settings(objective=objective, output="data/students/b", report="data/reports/b.json"))
    assert files(project / "data/students/a") == files(project / "data/students/b")
    log = [json.loads(line) for line in (project / "data/students/a/training_log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [2, 4, 6]
    assert (log[-1]["distillation"] > 0) == (objective != "itc")
    assert report.results["last"] == again.results["last"] == log[-1]
    card = (project / "data/students/a/README.md").read_text()
    assert f"- objective: {objective}\n- corpus: 24 images and 48 captions of split `train`, digest `" in card
    assert ("- rankings 0: digest `" in card) == (objective != "itc")
    assert f"- last step: 6, loss {log[-1]['loss']:.3f} (contrastive {log[-1]['contrastive']:.3f}, distillation" in card
    model = AutoModel.from_pretrained(project / "data/students/a")
    tokens = AutoTokenizer.from_pretrained(project / "data/students/a")(["red circle"], return_tensors="pt")
    assert torch.isfinite(model.get_text_features(**tokens).pooler_output).all()


def test_the_sigmoid_loss_learns_a_bias_that_the_saved_student_does_not_have(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bias moves from where it began; the folder loads without a weight too many."""
    lent = []
    step = learner.Learner.step

    def watched(self: learner.Learner, *arguments: Any) -> Any:
        losses = step(self, *arguments)
        lent.append(float(self.student.model.logit_bias.detach()))
        return losses

    monkeypatch.setattr(learner.Learner, "step", watched)
    run(settings(objective="itc", contrastive="sigmoid", sigmoid_bias=-3.0, output="data/students/a"))
    assert lent[0] != lent[-1]
    assert all(value == pytest.approx(-3.0, abs=0.1) for value in lent)
    _, notes = AutoModel.from_pretrained(project / "data/students/a", output_loading_info=True)
    assert not notes["missing_keys"]
    assert not notes["unexpected_keys"]


def test_a_scale_above_its_bound_comes_back(project: Path) -> None:
    """The bound holds from the first step, and gradients still reach the scale."""
    scales = [row["scale"] for row in logged(run(settings(objective="itc", largest_scale=5.0, output="data/students/a")), project)]
    assert max(scales) <= 5.0 * (1 + 1e-6)
    assert len(set(scales)) > 1


def logged(report: StageReport, project: Path) -> list[dict[str, float]]:
    """Rows of the training log."""
    folder = project / report.settings["output"]
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


def test_the_objectives_differ(project: Path) -> None:
    """The same start and data under three objectives give three students."""
    students = {run(settings(objective=o, output=f"data/students/{o}")).results["last"]["loss"] for o in ("itc", "cprd", "kl")}
    assert len(students) == 3


def test_a_second_call_does_nothing(project: Path) -> None:
    """The output is there and unchanged: the earlier report comes back, marked."""
    first, second = run(settings()), run(settings())
    assert not first.up_to_date
    assert second.up_to_date
    assert second.results == first.results


@pytest.mark.parametrize("removed", [False, True])
def test_a_run_that_failed_before_its_report_trains_nothing_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, *, removed: bool
) -> None:
    """The student is in place, or was removed as that of a failed stage: the report is the one that it would have been."""
    watching = {"eval_steps": 2, "eval_split": "train", "cosine_steps": 2}
    other = {"output": "data/students/other", "report": "data/reports/other.json"}
    wanted = run(settings(**other, **watching)).results
    student = Path("data/students/cprd")

    def fail(*_: object) -> None:
        raise MachineError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(StageReport, "save", fail)
        with pytest.raises(MachineError):
            run(settings(**watching))
    before = files(student)
    if removed:
        shutil.rmtree(student)
    monkeypatch.setattr(learner.Learner, "step", None)
    report = run(settings(**watching))
    assert not report.up_to_date
    unknown = {"pairs_per_s": None, "waiting_share": None}
    if not removed:
        unknown |= {"device": None, "dtype": None, "processes": None}
        assert dict(report.table)["computed on"] == "not known: by an earlier run"
    assert report.results | unknown == wanted | unknown
    assert files(student) == before
    assert Path("data/reports/distill_eval.csv").read_bytes() == Path("data/reports/other_eval.csv").read_bytes()
    assert run(settings(**watching)).up_to_date


PROGRAM = """
import json, sys, time, torch
torch.set_num_threads(1)
from cprd_pipeline.distillation import run as stage
from cprd_pipeline.distillation import checkpoints
from cprd_pipeline.distillation.settings import DistillSettings
save = checkpoints.Checkpoints.save
def slow(self, step, state):
    save(self, step, state)
    time.sleep(float(sys.argv[2]))
checkpoints.Checkpoints.save = slow
stage.run(DistillSettings.model_validate(json.loads(sys.argv[1])))
"""


def start(project: Path, values: dict[str, Any], pause: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, json.dumps(values), str(pause)]
    return subprocess.Popen(command, cwd=project, env=os.environ.copy(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    "watching",
    [{}, {"eval_steps": 1, "eval_split": "train", "eval_metric": "i2t_r10", "keep": "best", "patience": 4, "cosine_steps": 3}],
    ids=["plain", "watched"],
)
def test_sigkill_then_the_same_command_ends_with_the_same_bytes(project: Path, watching: dict[str, Any]) -> None:
    """Killed after the first checkpoint, resumed: every file equals that of a run that was never killed."""
    killed, whole = (settings(output=f"data/students/{name}", **watching) for name in ("killed", "whole"))
    process = start(project, killed.as_json(), pause=60)
    checkpoints = Path(os.environ["CPRD_CACHE"]) / "state" / "student"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*/checkpoints/step-*.pt")):
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (project / "data/students/killed").exists()
    for values in (killed, whole):
        process = start(project, values.as_json(), pause=0)
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error.decode()
    assert files(project / "data/students/killed") == files(project / "data/students/whole")


def test_two_towers_become_a_student(project: Path) -> None:
    """The paper's arrangement at toy size: a BERT and a ViT under fresh projections."""
    joined = tiny_two_towers(project / "joined")
    model = AutoModel.from_pretrained(joined)
    for name, tower in (("vision", model.vision_model), ("text", model.text_model)):
        tower.save_pretrained(project / name)
        for file in joined.glob("*token*" if name == "text" else "preprocessor*"):
            (project / name / file.name).write_bytes(file.read_bytes())
    student = {"vision": str(project / "vision"), "text": str(project / "text"), "projection_dim": 20}
    run(settings(student=student, learning_rate=1e-3))
    model = AutoModel.from_pretrained(project / "data/students/cprd")
    assert type(model).__name__ == "VisionTextDualEncoderModel"
    assert model.config.projection_dim == 20


def test_a_clip_folder_goes_on_from_its_weights(project: Path) -> None:
    """With a vanishing learning rate and no decay the student keeps what it began with."""
    begun = AutoModel.from_pretrained(tiny_clip(project / "clip"))
    run(settings(student=str(project / "clip"), learning_rate=1e-12, weight_decay=0, ema=0))
    ended = AutoModel.from_pretrained(project / "data/students/cprd")
    for (name, before), after in zip(begun.named_parameters(), ended.parameters(), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6, msg=name)


def test_pictures_that_do_not_fit_into_memory_give_the_same_student(project: Path) -> None:
    """Decoding every epoch anew, with and without workers, changes no bit."""
    run(settings(output="data/students/kept"))
    run(settings(output="data/students/decoded", pixel_cache_gb=0))
    run(settings(output="data/students/workers", pixel_cache_gb=0, workers=1))
    assert files(project / "data/students/kept") == files(project / "data/students/decoded")
    assert files(project / "data/students/kept") == files(project / "data/students/workers")


def test_a_loss_that_is_not_finite_stops_the_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step and the parts are named; the checkpoint before stays, and no output appears."""
    schedule = learner.learning_rate
    monkeypatch.setattr(learner, "learning_rate", lambda step, *rest: float("nan") if step == 2 else schedule(step, *rest))
    with pytest.raises(ModelError, match=r"loss is nan at step 3 .*the last checkpoint is kept"):
        run(settings())
    assert not (project / "data/students/cprd").exists()
    assert list((Path(os.environ["CPRD_CACHE"]) / "state" / "student").glob("*/checkpoints/step-000000002.pt"))


def test_rankings_without_a_valid_candidate_are_refused(project: Path) -> None:
    """With `valid: rankings` there would be nothing to learn from."""
    corpus = Corpus(project / "data/corpus")
    rows = [{**row, "n_valid": 0, "valid_cutoff": None} for row in every_pair_rankings(corpus, 4)]
    write_rankings(project / "data/rankings/none", rows, corpus)
    with pytest.raises(StoreError, match="n_valid is 0 everywhere"):
        run(settings(rankings=["data/rankings/none"], cprd={"valid": "rankings"}))


def test_rankings_of_other_images_are_refused(project: Path) -> None:
    """Those of another split, say: a training in which the teacher is never heard is no distillation."""
    corpus = Corpus(project / "data/corpus")
    images = pq.read_table(corpus.path / "images.parquet")
    captions = pq.read_table(corpus.path / "captions.parquet")
    writer = OutputWriter(corpus.path, "corpus", {"image_root": ".", "halves": True}, {})
    for name, table in (("images.parquet", images), ("captions.parquet", captions)):
        halves = ["train" if row < len(table) // 2 else "val" for row in range(len(table))]
        writer.write_table(name, table.set_column(table.schema.get_field_index("split"), table.schema.field("split"), [halves]))
    writer.write_table("positives.parquet", pq.read_table(corpus.path / "positives.parquet"))
    writer.finish()
    corpus = Corpus(corpus.path)
    asked = {f"i{row}" for row in range(len(images) // 2)} | {f"c{row}" for row in range(len(captions) // 2)}
    rows = [row for row in every_pair_rankings(corpus, 4) if row["query_id"] not in asked]
    for row in rows:
        kept = [place for place, item in enumerate(row["candidate_ids"]) if item not in asked]
        for name in ("candidate_ids", "teacher_scores", "similarities", "false_negative"):
            row[name] = [row[name][place] for place in kept]
    write_rankings(project / "data/rankings/val", rows, corpus)
    with pytest.raises(StoreError, match=r"no pair with an image of split train \(\d+ scored pairs.*`split: train` in stages/mine"):
        run(settings(rankings=["data/rankings/val"]))
    assert run(settings(rankings=["data/rankings/val"], split="val")).results["known_pairs"] > 0


def test_a_missing_student_folder_is_named(project: Path) -> None:
    """Before anything is trained."""
    with pytest.raises(ModelError, match="no/such/folder: there is no such folder"):
        run(settings(student="no/such/folder"))


def test_weights_that_are_not_finite_are_no_checkpoint(project: Path) -> None:
    """A rate beyond all measure: the loss before the step was finite, the weights after it are not."""
    with pytest.raises(ModelError, match=r"\d+ weights are not finite after step 1 \(first: .*\); .*the last checkpoint is kept"):
        run(settings(learning_rate=1e38, warmup_steps=0, ema=0, steps=1))
    assert not (project / "data/students/cprd").exists()
    assert not list((Path(os.environ["CPRD_CACHE"]) / "state" / "student").glob("*/checkpoints/step-*.pt"))


def test_a_student_is_not_replaced_by_what_it_becomes(project: Path) -> None:
    """Another output is asked for."""
    with pytest.raises(ValidationError, match=r"output is data/base, with which training begins"):
        settings(student="data/base", output="data/base")
    with pytest.raises(ValidationError, match=r"output is data/text, with which training begins"):
        settings(student={"vision": "data/vision", "text": "data/text", "projection_dim": 8}, output="data/text")


def test_scores_that_are_not_finite_are_refused(project: Path) -> None:
    """However they came into a table whose checksums are right."""
    corpus = Corpus(project / "data/corpus")
    rows = every_pair_rankings(corpus, 4)
    rows[5]["teacher_scores"][2] = float("nan")
    write_rankings(project / "data/rankings/nan", rows, corpus)
    with pytest.raises(StoreError, match=r"scores that are not finite, or not one a candidate; run score-teacher again"):
        run(settings(rankings=["data/rankings/nan"]))


@pytest.mark.parametrize("wrong", [{"betas": [1.0, 0.98]}, {"betas": [0.9, 1.0]}, {"seed": 2**64}])
def test_values_that_torch_cannot_take_are_refused(wrong: dict[str, Any]) -> None:
    """Before it is asked."""
    with pytest.raises(ValidationError, match="less than"):
        settings(**wrong)


def test_a_tensorboard_folder_that_is_a_file_is_named(project: Path) -> None:
    """Before the first step."""
    pytest.importorskip("tensorboard")
    (project / "board").write_text("")
    with pytest.raises(MachineError, match=r"board: File exists; mend this"):
        run(settings(tensorboard="board"))
