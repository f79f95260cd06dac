"""A run of `train-teacher` in a process of its own that dies in the middle."""

import os
import signal
import subprocess
import sys
import time

from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings
from cprd_pipeline.store.folder import cache_folder

_STAGE = """
import sys
from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings
from cprd_pipeline.distillation.teacher_training import run
run(TrainTeacherSettings.model_validate_json(sys.stdin.read()))
"""


def kill_in_the_middle(settings: TrainTeacherSettings, step: int) -> None:
    """Start the run and send SIGKILL as soon as it has saved the state after `step` steps; it must not have ended before."""
    process = subprocess.Popen(
        [sys.executable, "-c", _STAGE], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ
    )
    assert process.stdin is not None
    process.stdin.write(settings.model_dump_json())
    process.stdin.close()
    state = cache_folder() / "state" / "teacher"
    deadline = time.monotonic() + 120
    while not list(state.glob(f"*/checkpoints/step-{step:09d}.pt")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not settings.output.exists()
    assert max(path.name for path in state.glob("*/checkpoints/step-*.pt")) < f"step-{settings.steps:09d}.pt"
