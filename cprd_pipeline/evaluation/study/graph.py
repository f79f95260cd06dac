"""The whole study by one command: DVC makes what is missing or out of date."""

import os
import subprocess
import sys
from pathlib import Path

from cprd_pipeline.errors import SettingsError, StoreError
from cprd_pipeline.evaluation.study.settings import StudySettings
from cprd_pipeline.settings import load_settings
from cprd_pipeline.store.report import StageReport, read_report

_FOLDER = Path("stages/study")
GRAPH = _FOLDER / "dvc.yaml"


def reproduce(*, plain: bool) -> StageReport:
    """Run `dvc repro` on the study's graph in the current folder; what it prints goes to stderr.

    Args:
        plain: Nothing but settings files says how.

    Returns:
        The report of the graph's last stage.

    Raises:
        SettingsError: There is no such graph, or something that its stages would never see was to be set.
        StoreError: A stage failed; it has said why.
    """
    if not plain:
        raise SettingsError(
            "--run with --config, --set or --train", expected="--run alone", do=f"edit {_FOLDER}/study.yaml, which DVC watches"
        )
    if not GRAPH.is_file():
        raise SettingsError(f"{GRAPH}: there is no such file", do="run inside a project that `cprd-pipeline init DIR` made")
    # The stages call `cprd-pipeline`, which shall be the one of this very environment.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [sys.executable, "-m", "dvc", "repro", str(GRAPH)]
    # After Ctrl-C, which dvc gets too, leaving the block waits until it has ended in order.
    with subprocess.Popen(command, env=environment, stdout=sys.stderr) as process:
        code = process.wait()
    if code:
        raise StoreError(
            f"dvc repro {GRAPH} ended with exit code {code}",
            do="mend what it says above and run the same command again; finished stages are kept",
        )
    return read_report(load_settings(StudySettings, _FOLDER / "study.yaml").report)
