"""The pool: order, bounded look-ahead, errors, and death."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cprd_pipeline.corpus.workers import Workers
from cprd_pipeline.errors import CorpusError, MachineError


def refuse(number: int) -> int:
    """Fails for 3."""
    if number == 3:
        raise CorpusError("three", expected="another number", do="count on")
    return number


def die(number: int) -> None:
    """Ends its process as a lack of memory would."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("count", [0, 2])
def test_errors_arrive_whole(count):
    """What was before the failure is delivered; the error keeps its parts."""
    with Workers(count) as workers:
        results = workers.map(refuse, range(9))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(CorpusError, match="three; expected another number; count on"):
            next(results)


def test_tasks_are_drawn_only_as_results_are_taken():
    """A long stream of pictures never waits in memory."""
    drawn = []
    with Workers(2) as workers:
        results = workers.map(abs, (drawn.append(n) or n for n in range(1000)))
        assert next(results) == 0
        assert len(drawn) <= 16


def test_a_dead_worker_is_the_machines_fault():
    """The user is told what to lower."""
    with Workers(1) as workers, pytest.raises(MachineError, match=r"a worker process died.*lower `workers`"):
        list(workers.map(die, range(3)))


def test_workers_end_with_a_parent_that_was_killed():
    """After SIGKILL of the parent no worker stays behind."""
    program = (
        "import time\n"
        "from cprd_pipeline.corpus.workers import Workers\n"
        "from tests.corpus.test_workers import sleep_and_tell\n"
        "with Workers(2) as workers:\n"
        "    print(*set(workers.map(sleep_and_tell, [0.2] * 8)), flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = [int(word) for word in process.stdout.readline().split()]
    assert workers
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def sleep_and_tell(seconds: float) -> int:
    """The worker's own process id."""
    time.sleep(seconds)
    return os.getpid()


def alive(process: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
