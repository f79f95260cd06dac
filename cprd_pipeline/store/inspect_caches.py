"""What lies in a folder that has no manifest: the score store, embeddings, state of unfinished stages, reports."""

import json
from collections.abc import Iterable
from pathlib import Path

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.first_rows import first_rows_of_table, first_vectors
from cprd_pipeline.store.folder import MADE_BY, Part
from cprd_pipeline.store.output import JOURNAL
from cprd_pipeline.store.report import StageReport, read_report

_SIDES = ("images", "captions")


def inspect_cache(path: Path) -> StageReport | None:
    """Describe the folder; None if it is none of these.

    Raises:
        StoreError: A file in it is damaged.
    """
    if (path / "_delta_log").is_dir():
        return _scores(path)
    if any((path / side).is_dir() and _markers(path / side) for side in _SIDES):
        return _embeddings(path)
    if (path / JOURNAL).is_dir():
        return _state(path)
    reports = [(file, report) for file in sorted(path.glob("*.json")) if (report := _report(file)) is not None]
    return _reports(path, reports) if reports else None


def _scores(path: Path) -> StageReport:
    # Here, since they bring Polars and deltalake, which no other folder needs.
    from cprd_pipeline.store.score_commands import list_scores
    from cprd_pipeline.store.score_table import ScoreTable

    listed = list_scores(str(path))
    table = [
        ("folder", f"{path}: scores by teacher, kept for ever"),
        ("written by", "cprd-pipeline score-teacher"),
        *listed.table[1:],
    ]
    beginnings = {file.path: first_rows_of_table(path / file.path)._asdict() for file in ScoreTable(str(path)).files()[:1]}
    return StageReport("inspect", {}, {"kind": "scores", **listed.results, "first_rows": beginnings}, table)


def _embeddings(path: Path) -> StageReport:
    table = [
        ("folder", f"{path}: embeddings, a cache that may be deleted"),
        ("written by", "every command that embeds: mine, distill, evaluate"),
        ("encoder", path.name),
    ]
    results: dict[str, object] = {"kind": "embeddings"}
    beginnings = {}
    for side in _SIDES:
        markers = _markers(path / side)
        rows = sum(int(json.loads(marker.read_text(encoding="utf-8"))["rows"]) for marker in markers)
        table.append((side, f"{rows:,} vectors in {len(markers)} chunks"))
        results[side] = rows
        if markers:
            chunk = markers[0].with_suffix(".npy")
            beginnings[f"{side}/{chunk.name}"] = first_vectors(chunk)._asdict()
    return StageReport("inspect", {}, {**results, "first_rows": beginnings}, table)


def _markers(folder: Path) -> list[Path]:
    return [marker for marker in sorted(folder.glob("*.json")) if marker.with_suffix(".npy").is_file()]


def _state(path: Path) -> StageReport:
    parts = [Part(**json.loads(entry.read_text(encoding="utf-8"))) for entry in sorted((path / JOURNAL).glob("*.json"))]
    kind = path.parent.name
    table = [
        ("folder", f"{path}: state of a {kind} folder that is not finished"),
        ("written by", f"cprd-pipeline {MADE_BY.get(kind, kind)}; the same command with the same settings goes on here"),
        ("finished", f"{len(parts)} file{'' if len(parts) == 1 else 's'}, {sum(part.rows or 0 for part in parts):,} rows"),
    ]
    return StageReport("inspect", {}, {"kind": "state", "of": kind, "parts": [part.name for part in parts]}, table)


def _report(file: Path) -> StageReport | None:
    try:
        return read_report(file)
    except StoreError:
        return None


def _reports(path: Path, reports: Iterable[tuple[Path, StageReport]]) -> StageReport:
    rows = [(file.name, report.stage, report.seconds) for file, report in reports]
    table = [
        ("folder", f"{path}: reports of stages; name one of them to see its table"),
        *((name, f"cprd-pipeline {stage}, {sum(seconds.values()):.1f} s") for name, stage, seconds in rows),
    ]
    return StageReport("inspect", {}, {"kind": "reports", "reports": [name for name, *_ in rows]}, table)
