"""SIGKILL while the page is written, then the same command."""

import os
import signal
import subprocess
import sys

from cprd_pipeline.reporting.run import run
from tests.reporting.conftest import settings_of

_KILLED_BEFORE_RENAME = """
import os, signal, sys
import cprd_pipeline.store.atomic as atomic
from cprd_pipeline.reporting.run import run
from cprd_pipeline.reporting.settings import ReportSettings
atomic.os.replace = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
run(ReportSettings.model_validate_json(sys.argv[1]))
"""


def test_a_killed_report_leaves_no_half_page(made, tmp_path):
    """The page is not there, or is the old one; the same command then writes what an undisturbed run writes."""
    settings = settings_of(made, output=tmp_path / "report.html", report=tmp_path / "report.json")
    command = [sys.executable, "-c", _KILLED_BEFORE_RENAME, settings.model_dump_json()]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not settings.output.exists()
    run(settings)
    whole = settings.output.read_bytes()
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert settings.output.read_bytes() == whole
