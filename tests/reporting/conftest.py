import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cprd_pipeline.evaluation.run import run as evaluate
from cprd_pipeline.evaluation.settings import EvaluateSettings
from cprd_pipeline.reporting.run import run
from cprd_pipeline.reporting.settings import ReportSettings
from cprd_pipeline.store.report import StageReport
from tests.small_run import make_small_run

HOSTILE = "<script>document.title='broken into'</script><img src=x onerror=\"document.title='broken'\"> & \"a\" </script> b"


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A small run that was evaluated; one caption is an attack. Shared: a test that changes it takes `own`."""
    root = tmp_path_factory.mktemp("small_run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPRD_CACHE", str(root / "cache"))
        made = make_small_run(root, text=HOSTILE)
        evaluate(
            EvaluateSettings(
                corpus=made.corpus.path,
                students=made.students,
                rankings=root / "rankings",
                rerank_depth=10,
                device="cpu",
                dtype="float32",
                output=root / "evaluation",
                metrics=root / "metrics.json",
                report=root / "evaluate.json",
            )
        )
    mined = StageReport(
        "mine", {"k": 12}, {}, [("i2t queries", "1,234"), ("note", "<b>bold</b>")], {"embedding": 3.25, "searching": 61.0}
    )
    mined.save(root / "mine_test.json")
    steps = [{"step": step, "loss": 4 / step, "contrastive": 3 / step, "distillation": 0.0, "scale": 14} for step in range(1, 900)]
    (root / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    return made


@pytest.fixture
def own(made, tmp_path):
    """The small run in a copy that may be changed."""
    root = shutil.copytree(made.root, tmp_path / "run")
    return replace(made, root=root)


def settings_of(made, **changes):
    """Settings for a small run."""
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


@dataclass(frozen=True)
class Written:
    """A page that was written.

    Args:
        path: Its file.
        text: The whole of it.
        data: The gallery's data as the page's script reads them.
    """

    path: Path
    text: str
    data: dict[str, Any]


def write(made, **changes):
    """Write a page."""
    run(settings := settings_of(made, **changes))
    text = settings.output.read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="gallery-data">(.*?)</script>', text, re.DOTALL)[1]
    return Written(settings.output, text, json.loads(data))


@pytest.fixture(scope="session")
def written(made):
    """The page of the small run, with every query and the whole of every list."""
    return write(made)
