"""A program that runs `score-teacher` and kills it at random moments, until it was killed often enough.

One process imports everything once and forks each run off, so that a run starts at once and the moments fall into its work.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from cprd_pipeline.scoring.run import run
from cprd_pipeline.scoring.settings import ScoreSettings
from tests.scoring.slow_stub import LOG, LoggingStub

assert LoggingStub


def start(settings: ScoreSettings, cache: Path) -> int:
    """Run the stage in a child; its process number."""
    child = os.fork()
    if child:
        return child
    try:
        os.environ["CPRD_CACHE"] = str(cache)
        os.environ[LOG] = str(cache.with_suffix(".seen"))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        run(settings)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)


def kill_and_go_on(settings: ScoreSettings, cache: Path, most: float, moments: random.Random) -> int:
    """Start and kill the run until it ends by itself; how often it was killed."""
    kills = 0
    while True:
        child = start(settings, cache)
        time.sleep(moments.uniform(0, most))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            kills += 1
            continue
        assert os.waitstatus_to_exitcode(status) == 0, "the run failed"
        return kills


def main() -> None:
    """Arguments: settings as JSON, the folder to work in, how many kills, seed. Prints the kills of each run as JSON."""
    base, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    wanted, moments = int(sys.argv[3]), random.Random(int(sys.argv[4]))

    def settings(name: str) -> ScoreSettings:
        places = {"output": folder / name / "rankings", "report": folder / name / "score.json"}
        return ScoreSettings.model_validate({**base, **places})

    begin = time.monotonic()
    _, status = os.waitpid(start(settings("whole"), folder / "whole" / "cache"), 0)
    assert status == 0, "the run that is not killed failed"
    took = time.monotonic() - begin
    kills: list[int] = []
    while sum(kills) < wanted:
        name = f"killed-{len(kills)}"
        kills.append(kill_and_go_on(settings(name), folder / name / "cache", took, moments))
        shutil.rmtree(folder / name / "cache" / "state", ignore_errors=True)
    print(json.dumps(kills))


if __name__ == "__main__":
    main()
