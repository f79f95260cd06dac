"""The commands. Each one reads its settings, runs its stage and prints a short table; a room is imported when it is asked for."""

import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from cprd_pipeline import __version__
from cprd_pipeline.errors import CprdError

if TYPE_CHECKING:
    from cprd_pipeline.settings import Settings
    from cprd_pipeline.store.report import StageReport

S = TypeVar("S", bound="Settings")

app = typer.Typer(
    help="Buy a cross-encoder's knowledge once and distil it into a dual encoder for image-text retrieval.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings file instead of stages/<stage>.yaml.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace one setting; may be repeated.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the stage's report as JSON instead of a table.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def prepare(config: Config = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Read a source of images and captions; write data/corpus."""
    from cprd_pipeline.corpus.settings import PrepareSettings

    settings = _settings(PrepareSettings, "prepare", config, overrides)
    from cprd_pipeline.corpus.prepare import run

    _show(run(settings), as_json)


@app.command()
def train_teacher(config: Config = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Train the demo world's cross-encoder; write data/teacher."""
    from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings

    settings = _settings(TrainTeacherSettings, "train_teacher", config, overrides)
    from cprd_pipeline.distillation.teacher_training import run

    _show(run(settings), as_json)


@app.command()
def mine(config: Config = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Find hard negative candidates of both directions; write data/candidates."""
    from cprd_pipeline.mining.settings import MineSettings

    settings = _settings(MineSettings, "mine", config, overrides)
    from cprd_pipeline.mining.run import run

    _show(run(settings), as_json)


@app.command()
def score_teacher(config: Config = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Score every new pair once with the teacher; write data/rankings."""
    from cprd_pipeline.scoring.settings import ScoreSettings

    settings = _settings(ScoreSettings, "score_teacher", config, overrides)
    from cprd_pipeline.scoring.run import run

    _show(run(settings), as_json)


@app.command()
def distill(config: Config = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Train a student, from rankings or by the contrastive loss alone; write data/students."""
    from cprd_pipeline.distillation.settings import DistillSettings

    settings = _settings(DistillSettings, "distill", config, overrides)
    from cprd_pipeline.distillation.run import run

    _show(run(settings), as_json)


@app.command()
def evaluate(config: Config = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Measure students side by side, and the teacher's upper bound; write data/reports."""
    from cprd_pipeline.evaluation.settings import EvaluateSettings

    settings = _settings(EvaluateSettings, "evaluate", config, overrides)
    from cprd_pipeline.evaluation.run import run

    _show(run(settings), as_json)


@app.command()
def report(config: Config = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Make one HTML page from the files of a run; write data/reports/report.html."""
    from cprd_pipeline.reporting.settings import ReportSettings

    settings = _settings(ReportSettings, "report", config, overrides)
    from cprd_pipeline.reporting.run import run

    _show(run(settings), as_json)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder that a stage wrote, or a report in data/reports.")],
    as_json: AsJson = False,
) -> None:
    """Show what a folder of the pipeline holds, its files checked, or print a stage's report again."""
    from cprd_pipeline.store.inspect import inspect_path

    _show(inspect_path(path), as_json)


@app.command()
def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")]) -> None:
    """Write dvc.yaml and stages/ into DIR, for work outside a checkout of this project."""
    from cprd_pipeline.project import write_project

    for name in write_project(folder):
        typer.echo(f"{folder / name}")
    typer.echo(f"Next: cd {folder}, edit stages/prepare.yaml, then: git init; dvc init; dvc repro")


def _settings(model: "type[S]", stage: str, config: Path | None, overrides: list[str] | None) -> "S":
    from cprd_pipeline.settings import load_settings

    return load_settings(model, config or Path("stages") / f"{stage}.yaml", overrides or [])


def _show(done: "StageReport", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(done), indent=2, sort_keys=True))
    else:
        _print_table(done)


def _print_table(done: "StageReport") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{done.stage}{': up to date, nothing done' if done.up_to_date else ''}", title_justify="left", box=None)
    table.add_column("", style="dim")
    table.add_column("")
    for what, value in done.table:
        table.add_row(Text(what), Text(value))  # Text: square brackets in a path are no markup
    Console(width=None if sys.stdout.isatty() else 100).print(table)


class _Interrupted(BaseException):
    """Ctrl-C. Not a KeyboardInterrupt, which typer would turn into exit code 1."""


def _interrupt(signal_number: int, frame: object) -> NoReturn:
    raise _Interrupted


def main() -> NoReturn:
    """The console script: 0 done; 2 the user must change something; 130 interrupted; 1 our bug, with its traceback."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except CprdError as error:
        _fail(f"error: {error}", error.exit_code)
    except _Interrupted:
        _fail("interrupted: finished parts are kept, the same command goes on", 130)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    typer.secho(" ".join(message.split()), fg=typer.colors.RED, err=True)
    sys.exit(code)
