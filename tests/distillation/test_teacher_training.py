"""Stage `train-teacher`: what it leaves, that it learns, and that a kill changes no byte of it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation import teacher_batches
from cprd_pipeline.distillation.teacher_scenes import SceneRecipe
from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings
from cprd_pipeline.distillation.teacher_trainer import TeacherTrainer
from cprd_pipeline.distillation.teacher_training import run
from cprd_pipeline.errors import CorpusError, ModelError
from cprd_pipeline.models.scene_teacher import SceneTeacher
from cprd_pipeline.store.folder import InputFolder, cache_folder
from cprd_pipeline.store.output import OutputWriter
from tests.distillation.coloured_squares import coloured_squares
from tests.distillation.killed_teacher import kill_in_the_middle


def _settings(corpus: Corpus, folder: Path, **values: object) -> TrainTeacherSettings:
    quick = {"validation_split": None, "steps": 12, "batch_size": 8, "length_window": 3, "warmup_steps": 2, "log_steps": 4}
    paths = {"corpus": corpus.path, "output": folder / "teacher", "report": folder / "report.json", "device": "cpu"}
    return TrainTeacherSettings.model_validate(quick | paths | values)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_stage_leaves_a_teacher_that_scores(corpus: Corpus, tmp_path: Path):
    """The output is a checked folder with model card and log; SceneTeacher.load scores with it; the report has the figures."""
    settings = _settings(corpus, tmp_path, validation_split="train")
    report = run(settings)
    folder = InputFolder(settings.output, "teacher")
    folder.verify()
    assert {"README.md", "config.json", "model.safetensors", "training_log.jsonl"} <= {part.name for part in folder.manifest.parts}
    assert folder.manifest.inputs == {"corpus": corpus.digest}
    teacher = SceneTeacher.load(settings.output, torch.device("cpu"), torch.float32)
    with ImageReader(corpus) as reader:
        image = teacher.encode_images([reader.read(0)])[0]
    assert torch.isfinite(teacher.score(image, teacher.encode_texts(corpus.texts))).all()
    assert 2 not in {int(token) for ids in teacher.tokens(corpus.texts) for token in ids}, "a word of the corpus is unknown"
    assert [row["step"] for row in map(json.loads, (settings.output / "training_log.jsonl").read_text().splitlines())] == [4, 8, 12]
    assert report.results["steps"] == 12
    assert 0 < report.results["dual_rsum"] <= 600
    assert not (cache_folder() / "state" / "teacher" / folder.manifest.identity).exists()


def test_finished_work_is_not_done_again(corpus: Corpus, tmp_path: Path):
    """The same settings answer from the report; other validation figures are measured without training again."""
    settings = _settings(corpus, tmp_path)
    run(settings)
    before = (settings.output / "model.safetensors").stat()
    assert run(settings).up_to_date
    measured = run(_settings(corpus, tmp_path, validation_split="train"))
    assert not measured.up_to_date
    assert "training" not in measured.seconds
    assert "reranked_rsum" in measured.results
    after = (settings.output / "model.safetensors").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_seed_and_steps_shape_the_bytes_and_checkpoints_do_not(corpus: Corpus, tmp_path: Path):
    """How often the state is saved changes no byte; another seed does."""
    outputs = {}
    for name, values in {"once": {}, "often": {"checkpoint_steps": 5}, "other": {"seed": 1}}.items():
        settings = _settings(corpus, tmp_path / name, **values)
        run(settings)
        outputs[name] = _bytes(settings.output)
    assert outputs["once"] == outputs["often"]
    assert outputs["once"]["model.safetensors"] != outputs["other"]["model.safetensors"]


def test_teacher_learns_the_corpus_by_heart(corpus: Corpus, tmp_path: Path):
    """After some steps on 24 pictures its losses have fallen well below where they began."""
    settings = _settings(corpus, tmp_path, steps=120, log_steps=10, negatives=2)
    run(settings)
    rows = [json.loads(line) for line in (settings.output / "training_log.jsonl").read_text().splitlines()]
    first, last = rows[0], rows[-1]
    assert last["contrastive"] < 0.5 * first["contrastive"]
    assert last["matching"] < 0.6 * first["matching"]


def test_killed_run_goes_on_to_the_same_bytes(corpus: Corpus, tmp_path: Path):
    """SIGKILL in the middle, then the same call: it starts at the checkpoint and every file equals the undisturbed run's."""
    whole = _settings(corpus, tmp_path / "whole", steps=40, checkpoint_steps=5)
    run(whole)
    settings = _settings(corpus, tmp_path / "killed", steps=40, checkpoint_steps=5)
    kill_in_the_middle(settings, 10)
    run(settings)
    assert _bytes(settings.output) == _bytes(whole.output)


def test_a_resumed_run_trains_only_what_is_left(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Interrupted after step 5, the second call begins there: steps before it draw no batch again."""
    settings = _settings(corpus, tmp_path, checkpoint_steps=5)
    asked: list[int] = []
    plain = teacher_batches.LengthBatches.batches

    def counted(self: teacher_batches.LengthBatches, steps: range) -> list:
        if steps.start == 5 and 5 not in asked:
            asked.append(5)
            raise KeyboardInterrupt
        asked.extend(steps)
        return plain(self, steps)

    monkeypatch.setattr(teacher_batches.LengthBatches, "batches", counted)
    with pytest.raises(KeyboardInterrupt):
        run(settings)
    asked.remove(5)
    monkeypatch.setattr(teacher_batches.LengthBatches, "batches", lambda self, steps: asked.extend(steps) or plain(self, steps))
    run(settings)
    assert asked == list(range(12))


def test_too_small_a_corpus_is_refused(corpus: Corpus, tmp_path: Path):
    """A batch larger than the corpus names both numbers and what to do."""
    with pytest.raises(CorpusError, match=r"24 images with a caption, batch_size is 64.*lower batch_size"):
        run(_settings(corpus, tmp_path, batch_size=64))


def test_divergence_is_reported_with_its_step(corpus: Corpus, tmp_path: Path):
    """A logit or loss that is no number stops the run with the step and the knob to turn."""
    with pytest.raises(ModelError, match=r"come to -?(nan|inf) at step \d+.*lower learning_rate"):
        run(_settings(corpus, tmp_path, learning_rate=1e30, warmup_steps=0, clip_norm=1e30))


@pytest.mark.parametrize("values", [{"steps": 1}, {"steps": 3, "checkpoint_steps": 1}], ids=["at the end", "on the way"])
def test_weights_that_are_not_finite_are_neither_kept_nor_saved(corpus: Corpus, tmp_path: Path, values: dict[str, int]):
    """A rate beyond all measure: the loss before the step was finite, the weights after it are not."""
    settings = _settings(corpus, tmp_path, learning_rate=1e300, warmup_steps=0, **values)
    with pytest.raises(ModelError, match=r"\d+ weights are not finite after step 1 \(first: .*\); .*lower learning_rate"):
        run(settings)
    assert not settings.output.exists()
    assert not list((Path(os.environ["CPRD_CACHE"]) / "state" / "teacher").glob("*/checkpoints/step-*.pt"))


def test_a_steps_numbers_are_read_once_and_before_its_update(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Read after it, they would keep the next step's work from a GPU until this one's is done."""
    seen: list[str] = []

    def noted(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = plain(*arguments)
            seen.append(name)
            return result

        return call

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "__float__"):
            patch.setattr(torch.Tensor, name, noted("read", getattr(torch.Tensor, name)))
        patch.setattr(SceneRecipe, "losses", noted("losses", SceneRecipe.losses))
        patch.setattr(TeacherTrainer, "_update", noted("update", TeacherTrainer._update))
        patch.setattr(TeacherTrainer, "_state", noted("end", TeacherTrainer._state))
        run(_settings(corpus, tmp_path, log_steps=1))
    # What draws the negatives looks at their likeness.
    assert seen[: seen.index("end") + 1] == ["read", "losses", "read", "update"] * 12 + ["end"]


def _untrainable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("it was trained before it was refused")

    monkeypatch.setattr(TeacherTrainer, "run", fail)


def test_a_validation_split_that_is_not_there_is_named_before_training(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With the splits that are."""
    _untrainable(monkeypatch)
    with pytest.raises(CorpusError, match=r"split 'nope' has 0 images and 0 captions.*choose one of the splits train"):
        run(_settings(corpus, tmp_path, validation_split="nope"))


def test_a_validation_split_without_a_pair_is_refused_before_training(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An image, and a caption that is of another one."""
    _untrainable(monkeypatch)
    writer = OutputWriter(corpus.path, "corpus", {"image_root": ".", "split": True}, {})
    for name, held_out in (("images", 23), ("captions", 0)):
        table = pq.read_table(corpus.path / f"{name}.parquet")
        place, splits = table.schema.get_field_index("split"), ["val" if row == held_out else "train" for row in range(len(table))]
        writer.write_table(f"{name}.parquet", table.set_column(place, table.schema.field("split"), [splits]))
    writer.write_table("positives.parquet", pq.read_table(corpus.path / "positives.parquet"))
    writer.finish()
    with pytest.raises(CorpusError, match=r"split val: no image has a caption in it; .*choose another validation_split, or set it"):
        run(_settings(Corpus(corpus.path), tmp_path, validation_split="val"))


def test_of_one_image_there_is_no_matching_accuracy(tmp_path: Path):
    """All captions are its own, so that no random pair can be told from them: the report has null there, and says why."""
    corpus = coloured_squares(tmp_path / "corpus", 16, 1)
    report = run(_settings(corpus, tmp_path, validation_split="val"))
    assert report.results["matching_accuracy"] is None
    assert report.results["reranked_rsum"] == 600
    assert dict(report.table)["pairs on the right side of 0"] == "no random pair to tell from"
    assert json.loads((tmp_path / "report.json").read_text())["results"]["matching_accuracy"] is None
