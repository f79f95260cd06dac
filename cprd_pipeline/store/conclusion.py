"""A stage's end: the report of its finished output, and how the same command finds both again."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.folder import read_manifest
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.report import StageReport, read_report


def conclude(report: StageReport, path: Path, writer: OutputWriter) -> StageReport:
    """Save the report of an output that is in place, then let go of the state that it could be finished from again.

    Args:
        report: About the output.
        path: Where the report goes.
        writer: Of the output.

    Returns:
        What was written.
    """
    saved = replace(report, output=read_manifest(writer.target).digest).save(path)
    writer.forget_state()
    return saved


def earlier_report(path: Path, writer: OutputWriter, settings: Mapping[str, Any] | None = None) -> StageReport | None:
    """The report of the run that made the output, marked as up to date.

    Args:
        path: Where it would be.
        writer: Of the output.
        settings: Those of the report's that shape it and not the output, with the values that they must have; None for none.

    Returns:
        None where the output is not in place, or the report is not there, or is about another output or a killed run's older one.
    """
    if not writer.is_current():
        return None
    try:
        report = read_report(path)
    except StoreError:
        return None
    wanted = {"output": writer.target.as_posix(), **(settings or {})}
    # Reports of earlier versions do not say which content they are about.
    about = report.output in ("", read_manifest(writer.target).digest)
    if not about or any(report.settings.get(name) != value for name, value in wanted.items()):
        return None
    writer.forget_state()  # of a run that was killed after it had saved the report
    return replace(report, up_to_date=True)
