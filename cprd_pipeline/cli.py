"""The commands. Each one reads its settings, runs its stage and prints a short table; a room is imported when it is asked for."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer

from cprd_pipeline import __version__
from cprd_pipeline.errors import CprdError

if TYPE_CHECKING:
    from rich.text import Text

    from cprd_pipeline.settings import StageSettings
    from cprd_pipeline.store.report import StageReport

S = TypeVar("S", bound="StageSettings")

app = typer.Typer(
    help="Buy a cross-encoder's knowledge once and distil it into a dual encoder for image-text retrieval.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

scores_app = typer.Typer(help="Look after the score store: every teacher score that was ever bought.", no_args_is_help=True)
app.add_typer(scores_app, name="scores")

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings file instead of stages/<stage>.yaml.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace one setting; may be repeated.")]
Example = Annotated[
    Literal["demo", "coco"],
    typer.Option("--example", help="What to begin with: demo, the generated world; coco, your pairs and models."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the stage's report as JSON instead of a table.")]


Store = Annotated[
    str | None,
    typer.Option("--store", metavar="PATH_OR_URI", help="Another score store than <cache>/scores, CPRD_CACHE being the cache."),
]
Teacher = Annotated[str | None, typer.Option("--teacher", metavar="FP", help="Beginning of a fingerprint: this teacher only.")]
ForgetDamaged = Annotated[
    bool, typer.Option("--forget-damaged", help="Take damaged files out of the table; their scores are bought again.")
]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def prepare(
    config: Config = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    check: Annotated[bool, typer.Option("--check", help="Read and report only: write nothing, decode a few pictures.")] = False,
) -> None:
    """Read a source of images and captions; write data/corpus."""
    from cprd_pipeline.corpus.settings import PrepareSettings

    settings = _settings(PrepareSettings, "prepare", config, overrides, writes=not check)
    if check:
        from cprd_pipeline.corpus.checking import run_check

        found = run_check(settings)
        _show(found, as_json)
        raise typer.Exit(CprdError.exit_code if found.results["stops"] else 0)
    from cprd_pipeline.corpus.prepare import run

    _show(run(settings), as_json)


@app.command()
def train_teacher(config: Config = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Train the demo's cross-encoder, or fine-tune a BLIP; write data/teacher."""
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
    if settings.store is not None:
        from cprd_pipeline.store.score_disk import check_store_place

        check_store_place(settings.store)
    from cprd_pipeline.scoring.run import run

    _show(run(settings), as_json)


@app.command()
def distill(config: Config = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Train a student, from rankings or by the contrastive loss alone; write data/students."""
    from cprd_pipeline.distillation.settings import DistillSettings

    settings = _settings(DistillSettings, "distill", config, overrides)
    from cprd_pipeline.distillation.run import run

    done = run(settings)
    if os.environ.get("RANK", "0") == "0":  # Of the processes that torchrun starts, one speaks.
        _show(done, as_json)


@app.command()
def evaluate(config: Config = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Measure students side by side, and the teacher reranking one's lists; write data/reports."""
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
    from cprd_pipeline.store.inspect import first_rows_text, inspect_path

    found = inspect_path(path)
    _show(found, as_json)
    if not as_json:
        typer.echo(first_rows_text(found), nl=False)


@app.command()
def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")], example: Example = "demo") -> None:
    """Write dvc.yaml and stages/ into DIR, for work outside a checkout of this project."""
    from cprd_pipeline.project import write_project

    for name in write_project(folder, example):
        typer.echo(f"{folder / name}")
    first = [f"cd {folder}"] if folder.resolve() != Path.cwd() else []
    first += ["name your pairs and models in stages/"] if example != "demo" else []
    typer.echo(f"Next: {', '.join([*first, 'then: '] if first else [])}git init; dvc init; dvc repro")


@app.command()
def compare(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="MODEL, FOLDER:MODEL, or LABEL=MODEL,MODEL,... (seeds).")],
    evaluation: Annotated[Path, typer.Option("--evaluation", metavar="DIR", help="Where `evaluate` wrote.")] = Path(
        "data/reports/evaluation"
    ),
    replicates: Annotated[int, typer.Option("--replicates", min=1, help="Resampled test sets, and random swaps.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of both.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Test evaluated models against the first of them, on the same queries: differences, intervals, p-values."""
    from cprd_pipeline.evaluation.comparison import compare_models
    from cprd_pipeline.evaluation.reality import Protocol

    _show(compare_models(models, evaluation, Protocol(replicates, seed)), as_json)


@app.command()
def export(
    student: Annotated[str, typer.Argument(metavar="STUDENT", help="A student's folder, or any dual encoder by its hub name.")],
    onnx: Annotated[Path | None, typer.Option("--onnx", metavar="DIR", help="A new or empty folder for the ONNX files.")] = None,
    opset: Annotated[int, typer.Option("--opset", min=18, help="Version of ONNX' operators; 18 is the oldest.")] = 18,
    as_json: AsJson = False,
) -> None:
    """Write a student's two towers as ONNX files, after comparing them with PyTorch."""
    from cprd_pipeline.models.onnx_export import export_onnx

    _show(export_onnx(student, onnx, opset), as_json)


@app.command()
def study(
    config: Config = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    run_all: Annotated[bool, typer.Option("--run", help="Let DVC train whatever is missing, then compare.")] = False,
    train: Annotated[str | None, typer.Option("--train", metavar="ARM", help="Only train one student of this arm.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the student that --train trains.")] = 0,
) -> None:
    """Compare the paper's arms over several seeds; write data/reports/study.md and study.html."""
    if run_all:
        from cprd_pipeline.evaluation.study.graph import reproduce

        _show(reproduce(plain=not (config or overrides or train)), as_json)
        return
    from cprd_pipeline.evaluation.study.settings import StudySettings

    settings = _settings(StudySettings, "study/study", config, overrides)
    if train is not None:
        distill(settings.training, settings.training_overrides(train, seed), as_json)
        return
    from cprd_pipeline.evaluation.study.run import run
    from cprd_pipeline.reporting.study import write_study_page

    done = run(settings)
    write_study_page(settings.report, settings.page)
    _show(done, as_json)


@scores_app.command("list")
def scores_list(store: Store = None, as_json: AsJson = False) -> None:
    """Show what the store holds of each teacher."""
    from cprd_pipeline.store.score_commands import list_scores

    _show(list_scores(store), as_json)


@scores_app.command("verify")
def scores_verify(store: Store = None, forget_damaged: ForgetDamaged = False, as_json: AsJson = False) -> None:
    """Compare every file with the digest that it was written with."""
    from cprd_pipeline.store.score_commands import verify_scores

    _show(verify_scores(store, forget_damaged=forget_damaged), as_json)


@scores_app.command("compact")
def scores_compact(store: Store = None, teacher: Teacher = None, as_json: AsJson = False) -> None:
    """Make few large files of many small ones; delete replaced files. Refused while anybody uses the store."""
    from cprd_pipeline.store.score_commands import compact_scores

    _show(compact_scores(store, teacher), as_json)


@scores_app.command("export")
def scores_export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A Parquet file that is not there yet.")],
    store: Store = None,
    teacher: Teacher = None,
    as_json: AsJson = False,
) -> None:
    """Write scores to one Parquet file, for another machine."""
    from cprd_pipeline.store.score_commands import export_to

    _show(export_to(store, file, teacher), as_json)


@scores_app.command("import")
def scores_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `scores export` wrote.")],
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Add the scores of an exported file that the store does not have."""
    from cprd_pipeline.store.score_commands import import_from

    _show(import_from(store, file), as_json)


def _settings(model: "type[S]", stage: str, config: Path | None, overrides: list[str] | None, *, writes: bool = True) -> "S":
    """The settings of a stage, every place that it will write to looked at before it works."""
    from cprd_pipeline.settings import load_settings

    settings = load_settings(model, config or Path("stages") / f"{stage}.yaml", overrides or [])
    if writes:
        from cprd_pipeline.store.places import check_file_place, check_writable

        for file in settings.written_files:
            check_file_place(file)
        output = getattr(settings, "output", None)
        # One that is there may be finished, and lie where nobody may write: who would replace it tries the place.
        if output is not None and not output.exists():
            check_writable(output)
    return settings


def _show(done: "StageReport", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(done), indent=2, sort_keys=True))
    else:
        _print_table(done)


def _print_table(done: "StageReport") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    table.add_column("", style="dim")
    table.add_column("")
    for what, value in done.table:
        table.add_row(Text(what), _emphasised(value))  # Text: square brackets in a path are no markup
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 100)
    # Not the table's title, which would be wrapped at the table's width.
    console.print(Text(f"{done.stage}{': up to date, nothing done' if done.up_to_date else ''}", style="italic"))
    console.print(table)


def _emphasised(value: str) -> "Text":
    """What stands between double asterisks in bold."""
    from rich.text import Text

    pieces = value.split("**")
    return Text.assemble(*((piece, "bold" if place % 2 else "") for place, piece in enumerate(pieces)))


class _Interrupted(BaseException):
    """Ctrl-C. Not a KeyboardInterrupt, which typer would turn into exit code 1."""


def _interrupt(signal_number: int, frame: object) -> NoReturn:
    raise _Interrupted


def main() -> NoReturn:
    """The console script: 0 done; 2 the user must change something; 130 interrupted; 1 our bug, with its traceback."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        code = app(standalone_mode=False)
    except CprdError as error:
        _fail(f"error: {error}", error.exit_code)
    except _UsageError as error:
        _fail(_misuse(error), CprdError.exit_code)
    except _Interrupted:
        _fail("interrupted: finished parts are kept, the same command goes on", 130)
    sys.exit(code or 0)


# Click's, which newer versions of Typer keep under a name of their own.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def _misuse(error: Any) -> str:
    """One line for what Typer says about a command line; empty where it has printed the help instead."""
    found = error.format_message().strip().rstrip(".").replace("Value error, ", "")
    told = [f"error: {found}"] if found else []
    if found and error.ctx is not None:
        if any("--set" in option.opts for option in error.ctx.command.params):
            told.append("settings are given as --set key=value, without spaces around the =")
        told.append(f"see `{error.ctx.command_path} --help`")
    return "; ".join(told)


def _fail(message: str, code: int) -> NoReturn:
    if message:
        typer.secho(" ".join(message.split()), fg=typer.colors.RED, err=True)
    sys.exit(code)
