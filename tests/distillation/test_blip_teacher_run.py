"""Stage `train-teacher` with a BLIP: it learns, what it leaves is scored with like any BLIP, and a kill changes no byte of it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.teacher_evaluation import evaluate_teacher
from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings
from cprd_pipeline.distillation.teacher_training import run
from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.blip import BlipTeacher
from cprd_pipeline.models.conformance import check_teacher
from cprd_pipeline.models.teacher_choice import TeacherChoice
from cprd_pipeline.models.teachers import load_teacher, teacher_fingerprint
from cprd_pipeline.store.folder import InputFolder
from tests.distillation.coloured_squares import coloured_squares, tiny_blip
from tests.distillation.killed_teacher import kill_in_the_middle

CPU = torch.device("cpu")


def _settings(corpus: Corpus, blip: Path, folder: Path, **values: Any) -> TrainTeacherSettings:
    quick = {"validation_split": None, "steps": 6, "batch_size": 8, "length_window": 2, "warmup_steps": 2, "log_steps": 3}
    paths = {"corpus": corpus.path, "teacher": str(blip), "output": folder / "teacher", "report": folder / "report.json"}
    return TrainTeacherSettings.model_validate(quick | paths | {"device": "cpu"} | values)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_learns_what_it_is_shown_and_scores_like_any_blip(tmp_path: Path) -> None:
    """On pictures that it never saw matching and ranking are near perfect, where the random weights were near chance.

    The folder is found, checked, fingerprinted and loaded by its configuration alone; card and log say what the training did.
    """
    corpus = coloured_squares(tmp_path / "corpus", 128, 32)
    blip = tiny_blip(tmp_path / "blip", corpus.texts)
    untrained = BlipTeacher.load(blip, CPU, torch.float32)
    with ImageReader(corpus, prepare=untrained.preprocess) as reader:
        before = evaluate_teacher(untrained, untrained, reader, corpus, corpus.split("val"), 16, 0)
    wanted = {"steps": 100, "batch_size": 16, "learning_rate": 4e-3, "warmup_steps": 10, "log_steps": 10, "length_window": 8}
    settings = _settings(corpus, blip, tmp_path, validation_split="val", **wanted)
    report = run(settings)
    assert 40 < before.matching_accuracy < 65
    assert report.results["matching_accuracy"] > 90
    assert report.results["reranked_rsum"] > before.reranked_rsum + 100
    assert report.results["dual_rsum"] > before.dual_rsum + 100

    folder = InputFolder(settings.output, "teacher")
    folder.verify()
    assert set(folder.manifest.inputs) == {"corpus", "teacher"}
    assert load_file(settings.output / "model.safetensors").keys() == load_file(blip / "model.safetensors").keys()
    trained = TeacherChoice(model=str(settings.output))
    check_teacher(load_teacher(trained, CPU), captions=corpus.texts[:16:2])
    assert teacher_fingerprint(trained) != teacher_fingerprint(TeacherChoice(model=str(blip)))
    log = [json.loads(line) for line in (settings.output / "training_log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == list(range(10, 101, 10))
    card = (settings.output / "README.md").read_text()
    ended = re.search(r"begun at 0\.07, learned, (0\.\d+) at the end", card)
    assert ended is not None
    # The log says what the last step's loss was divided by, the card what came out of that step.
    assert float(ended[1]) == pytest.approx(log[-1]["temperature"], abs=2e-4)
    assert abs(float(ended[1]) - 0.07) > 1e-3
    assert str(tmp_path) not in card


def test_another_beginning_is_another_teacher_and_the_same_one_elsewhere_is_not(corpus: Corpus, tmp_path: Path) -> None:
    """Finished work is found by the content of what it began with, not by its place."""
    first, second = (tiny_blip(tmp_path / name, corpus.texts, spare_words=spare) for name, spare in (("a", 2), ("b", 3)))
    settings = _settings(corpus, first, tmp_path)
    run(settings)
    moved = first.rename(tmp_path / "moved")
    assert run(_settings(corpus, moved, tmp_path, report=tmp_path / "other.json")).seconds.get("training") is None
    assert run(_settings(corpus, second, tmp_path)).seconds["training"] > 0


def test_killed_run_goes_on_to_the_same_bytes(corpus: Corpus, tmp_path: Path) -> None:
    """SIGKILL in the middle, then the same call: with dropout and a learned temperature every file equals the undisturbed run's."""
    blip = tiny_blip(tmp_path / "blip", corpus.texts, dropout=0.1)
    shape = {"steps": 24, "checkpoint_steps": 3}
    whole = _settings(corpus, blip, tmp_path / "whole", **shape)
    run(whole)
    settings = _settings(corpus, blip, tmp_path / "killed", **shape)
    kill_in_the_middle(settings, 6)
    run(settings)
    assert _bytes(settings.output) == _bytes(whole.output)


def test_divergence_is_reported_with_its_step(corpus: Corpus, tmp_path: Path) -> None:
    """A similarity or loss that is no number stops the run with the step and the knob to turn."""
    blip = tiny_blip(tmp_path / "blip", corpus.texts)
    with pytest.raises(ModelError, match=r"come to -?(nan|inf) at step \d+.*lower learning_rate"):
        run(_settings(corpus, blip, tmp_path, learning_rate=1e30, warmup_steps=0, clip_norm=1e30))
