"""The machine-readable report that each stage writes beside its output: results, settings, versions, times.

Times, versions and hosts live here and never inside an output, where they would make everything after it run again.
"""

import csv
import importlib.metadata
import io
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cprd_pipeline import __version__
from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.atomic import write_bytes, write_json

_LIBRARIES = ("torch", "transformers", "faiss-cpu", "faiss-gpu", "pyarrow", "polars", "deltalake", "numpy")


@dataclass(frozen=True)
class StageReport:
    """What one run of a stage has to say.

    Args:
        stage: The command's name.
        settings: The full settings, defaults included.
        results: Counts and figures, JSON types only.
        table: The rows that the terminal shows: (what, value).
        seconds: Wall-clock seconds per part of the run.
        up_to_date: Nothing was done because the output was already there.
        machine: Versions, processor count and platform.
        output: Digest of the output that it is about, its content included; empty where there is none.
    """

    stage: str
    settings: dict[str, Any]
    results: dict[str, Any]
    table: list[tuple[str, str]]
    seconds: dict[str, float] = field(default_factory=dict)
    up_to_date: bool = False
    machine: dict[str, Any] = field(default_factory=dict)
    output: str = ""

    def save(self, path: Path) -> "StageReport":
        """Write the report, the machine's description filled in; returns what was written."""
        full = StageReport(**{**asdict(self), "machine": describe_machine()})
        write_json(path, asdict(full))
        return full


def save_series(report: Path, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns as CSV beside a report, `<report>_<name>.csv`, for `dvc plots`.

    Args:
        report: Path of the stage's report.
        name: What the rows are.
        columns: Values of each column, all of one length.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_bytes(report.with_name(f"{report.stem}_{name}.csv"), text.getvalue().encode())


def read_report(path: Path) -> StageReport:
    """Read a report that `StageReport.save` wrote.

    Raises:
        StoreError: There is no such file, or it is not a report.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["table"] = [(row[0], row[1]) for row in content["table"]]
        return StageReport(**content)
    except FileNotFoundError:
        raise StoreError(f"{path}: there is no such report", do="run the stage that writes it, or `dvc repro`") from None
    except (ValueError, TypeError, KeyError, IndexError):
        raise StoreError(f"{path}: not a stage report", do="delete it and run its stage again") from None


def describe_machine() -> dict[str, Any]:
    """Versions, platform and processor count; the device is the stage's own to tell."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed has no version to report
    return {
        "cprd-pipeline": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "libraries": versions,
    }


class Stopwatch:
    """Wall-clock seconds of the named parts of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time of the block to `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = round(self.seconds.get(part, 0.0) + time.perf_counter() - start, 3)
