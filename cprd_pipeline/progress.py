"""Progress bars on stderr, with rate and time left, for everything that takes longer than a blink."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class RateColumn(ProgressColumn):
    """Items per second of the running task."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Text such as `1,234 pairs/s`; a dash before the first estimate."""
        speed = task.finished_speed or task.speed
        return Text("-" if speed is None else f"{speed:,.0f} {self._unit}/s" if speed >= 10 else f"{speed:.1f} {self._unit}/s")


class Bar:
    """Handle of one running bar."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress = progress
        self._task = progress.task_ids[task]

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count finished items; `note` is shown behind the bar."""
        self._progress.update(self._task, advance=count, note=note)


def announce(text: str) -> None:
    """A line on stderr about what is going to happen."""
    # Text: square brackets are no markup.
    Console(stderr=True, soft_wrap=True).print(Text(text))


@contextmanager
def progress_bar(title: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
    """Show a bar on stderr while the block runs.

    Args:
        title: What is being done, a word or two.
        total: Number of items of the whole job, those of an earlier run included.
        unit: Plural name of the items.
        done: Items that an earlier, interrupted run finished.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        RateColumn(unit),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
    )
    # A file or a pipe gets no control characters: rich writes the final state once there.
    with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
        progress.add_task(title, total=total, completed=done, note="")
        yield Bar(progress, 0)
