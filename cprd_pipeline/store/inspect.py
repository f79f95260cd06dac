"""What a folder or a report of ours holds, in a few lines: the command `inspect`."""

import json
from pathlib import Path

from cprd_pipeline.store.folder import InputFolder, read_manifest
from cprd_pipeline.store.report import StageReport, read_report

_SHOWN_PARTS = 12


def inspect_path(path: Path) -> StageReport:
    """Describe a stage's report or an output folder; a folder's files are compared with their checksums.

    Raises:
        StoreError: Neither of the two, or a file has changed.
    """
    return read_report(path) if path.is_file() else _inspect_folder(path)


def _inspect_folder(path: Path) -> StageReport:
    manifest = read_manifest(path)
    InputFolder(path, manifest.kind).verify()
    rows = sum(part.rows or 0 for part in manifest.parts)
    table = [
        ("folder", f"{path}: {manifest.kind}, schema {manifest.schema_version}, every checksum is right"),
        ("digest", manifest.digest),
        ("rows", f"{rows:,} in {len(manifest.parts)} files"),
        *((f"from {name}", digest) for name, digest in manifest.inputs.items()),
        *((f"setting {name}", json.dumps(value)) for name, value in manifest.settings.items()),
        *((part.name, "" if part.rows is None else f"{part.rows:,} rows") for part in manifest.parts[:_SHOWN_PARTS]),
    ]
    if len(manifest.parts) > _SHOWN_PARTS:
        table.append(("and", f"{len(manifest.parts) - _SHOWN_PARTS} more files"))
    return StageReport("inspect", manifest.settings, {"kind": manifest.kind, "rows": rows, "digest": manifest.digest}, table)
