"""Judged sets as `evaluate` runs them: in the metrics, in the terminal, and made anew when their files change."""

import json

import numpy as np
import pytest

import cprd_pipeline.evaluation.run as stage
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.sugarcrepe import KINDS
from tests.evaluation.judged.small_sets import write_json


@pytest.fixture
def crepe(tmp_path, made, monkeypatch):
    """A set of 14 pairs about the small run's images; `right` has the first image's vector of a student, `wrong` its reverse."""
    images = made.rows_of_split(made.corpus.images)
    for number, kind in enumerate(KINDS):
        entries = {
            str(which): {
                "filename": made.corpus.images.ids[images[2 * number + which]],
                "caption": f"{'right' if which or number else 'wrong'} {2 * number + which}",
                "negative_caption": f"{'wrong' if which or number else 'right'} {2 * number + which}",
            }
            for which in range(2)
        }
        write_json(tmp_path / "crepe" / f"{kind}.json", entries)

    def embedder(encoder, *, device, dtype, batch_size):
        name = next(name for name, folder in made.students.items() if folder == encoder)
        student = stage.embed_student(name, settings, made.corpus, made.corpus.split("test"))

        def embed(texts):
            signs = [1 if text.startswith("right") else -1 for text in texts]
            return np.stack([sign * student.images[int(text.split()[1])] for sign, text in zip(signs, texts, strict=True)]).astype(
                np.float32
            )

        return embed

    settings = stage.EvaluateSettings(students=made.students, rankings=None, device="cpu", dtype="float32")
    monkeypatch.setattr(stage, "text_embedder", embedder)
    return tmp_path / "crepe"


def test_judged_figures_join_the_metrics(made, settings_of, crepe):
    """Thirteen of fourteen are right; each student has its figures, the terminal a line each; counts are told."""
    done = stage.run(settings := settings_of(made, judged={"sugarcrepe": crepe}))
    metrics = json.loads(settings.metrics.read_text())
    for student in made.students:
        assert metrics[student]["sugarcrepe_add_att"] == 50.0
        assert metrics[student]["sugarcrepe_swap_obj"] == 100.0
        assert metrics[student]["sugarcrepe_mean"] == pytest.approx(100 * 6.5 / 7, abs=1e-3)
    assert "sugarcrepe_mean" not in metrics["teacher"]
    bounds = done.results["judged"]["sugarcrepe"]["intervals"]["base"]
    assert bounds["swap_obj"] == [100.0, 100.0]
    assert bounds["add_att"][0] < 50.0 < bounds["add_att"][1]
    assert done.results["judged"]["sugarcrepe"]["counts"]["pairs"] == 14
    assert ("  mean", "".join(f"{100 * 6.5 / 7:>11.2f}" for _ in made.students)) in done.table
    assert stage.run(settings).up_to_date
    entry = json.loads((crepe / "add_att.json").read_text())
    entry["0"]["filename"] = "stranger.jpg"
    write_json(crepe / "add_att.json", entry)
    with pytest.raises(
        CorpusError, match=r"1 of 14 ids are not in split 'test', the first 'stranger\.jpg'; expected at most 5% unknown"
    ):
        stage.run(settings)
    done = stage.run(settings_of(made, judged={"sugarcrepe": crepe, "unknown_limit": 0.1}))
    assert done.results["judged"]["sugarcrepe"]["unknown"] == ["stranger.jpg"]
    assert ("  unknown ids", "1, the first stranger.jpg") in done.table


def test_a_set_that_is_not_there_is_said_at_once(made, settings_of, tmp_path):
    """Before anything is embedded."""
    with pytest.raises(CorpusError, match=r"nowhere: there is no such file or folder; expected a judged set"):
        stage.run(settings_of(made, judged={"eccv": tmp_path / "nowhere"}))
