"""Progress bars on stderr, with rate and time left, for everything that takes longer than a blink."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

SAY_EVERY_S = 60.0
"""How often a bar that nobody can see move says where it is: in a log, or behind a pipe."""


def compact(number: float | int) -> str:
    """A number in at most five characters: 9,999, 12.3k, 4.24M, 1.5G; below ten with one decimal."""
    if number < 10_000:
        return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size * 0.9995:
            share = number / size
            text = f"{share:.{2 if share < 9.995 else 1 if share < 99.95 else 0}f}"
            return (text.rstrip("0").rstrip(".") if "." in text else text) + letter
    raise AssertionError


class CountColumn(ProgressColumn):
    """Items done of all."""

    def render(self, task: Task) -> Text:
        """Text such as `4.24M/10M`."""
        return Text(f"{compact(task.completed)}/{compact(task.total or 0)}", no_wrap=True)


class RateColumn(ProgressColumn):
    """Items per second of the running task, or what the items are made of."""

    def __init__(self, unit: str, each: int) -> None:
        super().__init__()
        self._unit = unit
        self._each = each

    def render(self, task: Task) -> Text:
        """Text such as `1,234 pairs/s`; a dash before the first estimate."""
        speed = task.finished_speed or task.speed
        return Text("-" if speed is None else f"{compact(speed * self._each)} {self._unit}/s", no_wrap=True)


class Bar:
    """Handle of one running bar."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress = progress
        self._task = progress.task_ids[task]
        self._said = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count finished items; `note` is shown behind the bar."""
        self._progress.update(self._task, advance=count, note=note)
        console = self._progress.console
        if not console.is_terminal and not self._progress.disable and time.monotonic() - self._said > SAY_EVERY_S:
            self._said = time.monotonic()
            console.print(self._progress.make_tasks_table(self._progress.tasks))


def announce(text: str) -> None:
    """A line on stderr about what is going to happen."""
    # Text: square brackets are no markup.
    Console(stderr=True, soft_wrap=True).print(Text(text))


@contextmanager
def progress_bar(title: str, total: int, unit: str, done: int = 0, *, each: int = 1, shown: bool = True) -> Iterator[Bar]:
    """Show a bar on stderr while the block runs.

    Args:
        title: What is being done, a word or two.
        total: Number of items of the whole job, those of an earlier run included.
        unit: Plural name of the items, or of what they are made of: the rate is given in it.
        done: Items that an earlier, interrupted run finished.
        each: How many of the unit an item is.
        shown: Whether there is a bar at all.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        CountColumn(),
        RateColumn(unit, each),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True)),
    )
    # A file or a pipe gets no control characters: a line now and then, and by rich the final state.
    with Progress(*columns, console=Console(stderr=True), transient=False, disable=not shown) as progress:
        progress.add_task(title, total=total, completed=done, note="")
        yield Bar(progress, 0)
