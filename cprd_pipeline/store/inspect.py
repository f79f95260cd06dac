"""What a folder or a report of ours holds: the command `inspect`."""

import json
import re
from pathlib import Path
from typing import Any

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.first_rows import FirstRows, first_rows_of_table, first_tensors, render
from cprd_pipeline.store.folder import MADE_BY, InputFolder, Manifest, read_manifest
from cprd_pipeline.store.inspect_caches import inspect_cache
from cprd_pipeline.store.places import MANIFEST
from cprd_pipeline.store.report import StageReport, read_report

_SHOWN_PARTS = 12
_SHOWN_TABLES = 6


def inspect_path(path: Path) -> StageReport:
    """Describe a stage's report, an output folder, or a cache; an output's files are compared with their checksums.

    `results["first_rows"]` holds the beginnings of the files as strings; `first_rows_text` makes tables of them.

    Raises:
        StoreError: None of these, or a file has changed.
    """
    if path.is_file():
        return _read_report(path)
    if not (path / MANIFEST).exists():
        described = inspect_cache(path)
        if described is not None:
            return described
    return _inspect_folder(path)


def first_rows_text(report: StageReport) -> str:
    """The beginnings of the files that `inspect_path` found, as tables of at most 80 columns; empty without any."""
    found: dict[str, dict[str, Any]] = report.results.get("first_rows", {})
    return "".join("\n" + render(name, FirstRows(**content)) for name, content in found.items())


def _read_report(path: Path) -> StageReport:
    try:
        return read_report(path)
    except StoreError:
        # Another advice than a stage has about a report that it needs: this may be any file of the user's.
        raise StoreError(
            f"{path}: not the report of a stage",
            expected="a stage's report (.json in data/reports), an output folder such as data/corpus, or a cache folder",
            do="name one of them",
        ) from None


def _inspect_folder(path: Path) -> StageReport:
    manifest = read_manifest(path)
    folder = InputFolder(path, manifest.kind)
    folder.verify()
    rows = sum(part.rows or 0 for part in manifest.parts)
    files = f"{len(manifest.parts)} file{'' if len(manifest.parts) == 1 else 's'}"
    table = [
        ("folder", f"{path}: {manifest.kind}, schema {manifest.schema_version}, every checksum is right"),
        ("written by", f"cprd-pipeline {MADE_BY.get(manifest.kind, manifest.kind)}"),
        ("digest", manifest.digest),
        ("rows", f"{rows:,} in {files}") if any(part.rows is not None for part in manifest.parts) else ("holds", files),
        *((f"from {name}", digest) for name, digest in manifest.inputs.items()),
        *((f"setting {name}", json.dumps(value, ensure_ascii=False)) for name, value in manifest.settings.items()),
        *((part.name, "" if part.rows is None else f"{part.rows:,} rows") for part in manifest.parts[:_SHOWN_PARTS]),
    ]
    if len(manifest.parts) > _SHOWN_PARTS:
        table.append(("and", f"{len(manifest.parts) - _SHOWN_PARTS} more files"))
    beginnings = {name: content._asdict() for name, content in _beginnings(folder).items()}
    results = {"kind": manifest.kind, "rows": rows, "digest": manifest.digest, "first_rows": beginnings}
    return StageReport("inspect", manifest.settings, results, table)


def _beginnings(folder: InputFolder) -> dict[str, FirstRows]:
    """Of the first part of each kind, such as i2t-00000 for all of i2t."""
    first = {re.sub(r"\d+", "", name): name for name in reversed(_readable(folder.manifest))}
    return {
        name: first_rows_of_table(folder.path / name) if name.endswith(".parquet") else first_tensors(folder.path / name)
        for name in sorted(first.values())[:_SHOWN_TABLES]
    }


def _readable(manifest: Manifest) -> list[str]:
    return [part.name for part in manifest.parts if part.name.endswith((".parquet", ".safetensors"))]
