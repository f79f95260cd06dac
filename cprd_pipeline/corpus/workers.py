"""Worker processes that run ahead of their caller within bounded memory, and never outlive it."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from types import TracebackType
from typing import TypeVar

from cprd_pipeline.errors import MachineError

_WINDOW_PER_WORKER = 8  # tasks in flight: enough to hide uneven files, little enough for memory

Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers:
    """A pool of processes, or none.

    Args:
        count: Processes; 0 runs everything in the caller's own.
        *preload: Modules that all workers need: imported once, before they are forked off, their memory shared.
    """

    def __init__(self, count: int, *preload: str) -> None:
        self.count = count
        self._preload = preload
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        if self.count:
            # fork would copy the locks of FAISS's and torch's threads, and hang.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__, *self._preload])
            self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_begin_worker)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Results in the order of the tasks, which are drawn only as fast as results are taken.

        Args:
            function: A function of a module, so that another process finds it.
            tasks: Picklable arguments.

        Raises:
            MachineError: A worker process died, most likely for lack of memory.
        """
        if self._pool is None:
            yield from map(function, tasks)
            return
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(self._pool.submit(function, task))
                if len(waiting) >= _WINDOW_PER_WORKER * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise MachineError(
                "a worker process died",
                expected="memory for one decoded picture a worker",
                do="lower `workers` and run the same command again",
            ) from None
        finally:
            # A caller that stops early leaves no work behind.
            for future in waiting:
                future.cancel()


def _begin_worker() -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A parent killed with SIGKILL closes nothing: without this watch its workers would wait for tasks for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
