import pytest

from cprd_pipeline.evaluation.settings import EvaluateSettings
from tests.small_run import make_small_run


@pytest.fixture
def made(tmp_path):
    """A small run, its similarities and teacher scores known."""
    return make_small_run(tmp_path)


@pytest.fixture
def settings_of():
    """Settings for a small run."""

    def settings(made, **changes):
        values = {
            "corpus": made.corpus.path,
            "students": made.students,
            "rankings": made.root / "rankings",
            "rerank_depth": 10,
            "device": "cpu",
            "dtype": "float32",
            "output": made.root / "evaluation",
            "metrics": made.root / "metrics.json",
            "report": made.root / "evaluate.json",
        }
        return EvaluateSettings(**(values | changes))

    return settings
