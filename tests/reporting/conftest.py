import json

import pytest

from cprd_pipeline.evaluation.run import run as evaluate
from cprd_pipeline.evaluation.settings import EvaluateSettings
from cprd_pipeline.reporting.settings import ReportSettings
from cprd_pipeline.store.report import StageReport
from tests.small_run import make_small_run

HOSTILE = "<script>document.title='broken into'</script><img src=x onerror=\"document.title='broken'\"> & \"a\" </script> b"


@pytest.fixture
def made(tmp_path):
    """A small run that was evaluated; one caption is an attack."""
    made = make_small_run(tmp_path, text=HOSTILE)
    evaluate(
        EvaluateSettings(
            corpus=made.corpus.path,
            students=made.students,
            rankings=tmp_path / "rankings",
            rerank_depth=10,
            device="cpu",
            dtype="float32",
            output=tmp_path / "evaluation",
            metrics=tmp_path / "metrics.json",
            report=tmp_path / "evaluate.json",
        )
    )
    mined = StageReport(
        "mine", {"k": 12}, {}, [("i2t queries", "1,234"), ("note", "<b>bold</b>")], {"embedding": 3.25, "searching": 61.0}
    )
    mined.save(tmp_path / "mine_test.json")
    steps = [{"step": step, "loss": 4 / step, "contrastive": 3 / step, "distillation": 0.0, "scale": 14} for step in range(1, 900)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    return made


@pytest.fixture
def settings_of():
    """Settings for a small run."""

    def settings(made, **changes):
        root = made.root
        values = {
            "corpus": made.corpus.path,
            "evaluation": root / "evaluation",
            "rankings": root / "rankings",
            "stages": [root / "mine_test.json", root / "evaluate.json"],
            "logs": {"base": root / "log.jsonl"},
            "gallery": {"queries": 100, "shown": 20, "thumbnail_pixels": 32},
            "output": root / "report.html",
            "report": root / "report.json",
        }
        return ReportSettings.model_validate(values | changes)

    return settings
