"""Finished output folders: a manifest, written last, and parts that are read with their checksums compared."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.atomic import checksum
from cprd_pipeline.store.fingerprint import json_digest
from cprd_pipeline.store.places import MANIFEST, named_kind
from cprd_pipeline.store.schemas import SCHEMA_VERSION


def cache_folder() -> Path:
    """Where caches and resumable state lie: `CPRD_CACHE` in the environment, otherwise `data`."""
    return Path(os.environ.get("CPRD_CACHE", "data"))


@dataclass(frozen=True)
class Part:
    """One file of an output: its name, its checksum, and its rows where it is a table."""

    name: str
    checksum: str
    rows: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What determines an output's bytes, and the bytes' checksums; no times, hosts or versions.

    Args:
        kind: What the folder is: corpus, teacher, candidates, rankings, student, evaluation.
        settings: The settings that shape the content.
        inputs: Name of each input to its digest (another manifest's digest, a model's or encoder's fingerprint).
        parts: The files, in the order in which they were written.
        schema_version: Version of the file contracts.
    """

    kind: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    parts: tuple[Part, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def identity(self) -> str:
        """Digest of everything that determines the bytes; equal identity means an equal output."""
        return json_digest([self.kind, self.schema_version, self.settings, self.inputs])

    @property
    def digest(self) -> str:
        """Digest of the whole manifest, the bytes' checksums included: names this very content."""
        return json_digest(asdict(self))


@dataclass
class InputFolder:
    """A finished output, read with its checks.

    Args:
        path: The folder.
        kind: What it must be.

    Raises:
        StoreError: There is no such folder, it is unfinished, of another kind or of another schema.
    """

    path: Path
    kind: str
    manifest: Manifest = field(init=False)
    _verified: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.manifest = read_manifest(self.path, self.kind)

    def part_names(self, prefix: str) -> list[str]:
        """Names of the parts that begin with `prefix`, sorted."""
        return [part.name for part in self.manifest.parts if part.name.startswith(prefix)]

    def part_path(self, name: str) -> Path:
        """Path of a part, after its checksum was compared once.

        Raises:
            StoreError: The part is not in the manifest, is gone, or its bytes have changed.
        """
        path = self.path / name
        if name in self._verified:
            return path
        part = next((part for part in self.manifest.parts if part.name == name), None)
        if part is None:
            raise StoreError(
                f"{path}: not in the manifest", expected=f"a part that {self.kind} folders have", do=_remake(self.kind)
            )
        if not path.is_file():
            raise StoreError(f"{path}: the file is gone", expected="every part of the manifest", do=_remake(self.kind))
        if checksum(path) != part.checksum:
            raise StoreError(f"{path}: its bytes changed after it was written", expected=part.checksum, do=_remake(self.kind))
        self._verified.add(name)
        return path

    def table(self, name: str) -> pa.Table:
        """A Parquet part as a table."""
        return pq.read_table(self.part_path(name))

    def tables(self, prefix: str) -> pa.Table:
        """All Parquet parts whose names begin with `prefix`, one after the other."""
        return pa.concat_tables([self.table(name) for name in self.part_names(prefix)])

    def verify(self) -> None:
        """Compare every part with its checksum.

        Raises:
            StoreError: As `part_path`.
        """
        for part in self.manifest.parts:
            self.part_path(part.name)


MADE_BY: dict[str, str] = {
    "corpus": "prepare",
    "teacher": "train-teacher",
    "candidates": "mine",
    "rankings": "score-teacher",
    "student": "distill",
    "evaluation": "evaluate",
}
"""The command that writes each kind of folder."""


def _remake(kind: str) -> str:
    return f"make it again with `cprd-pipeline {MADE_BY.get(kind, kind)}` or `dvc repro`"


def read_manifest(folder: Path, kind: str | None = None) -> Manifest:
    """The manifest of a finished output.

    Args:
        folder: The output.
        kind: What it must be; None for anything of ours.

    Raises:
        StoreError: There is no such folder, it is unfinished, of another kind or of another schema.
    """
    path = folder / MANIFEST
    wanted = named_kind(kind) if kind else "a folder that a stage wrote"
    do = _remake(kind) if kind else "name one of the folders in data/"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = tuple(Part(**part) for part in content.pop("parts"))
        manifest = Manifest(parts=parts, **content)
    except FileNotFoundError:
        missing = "there is no such folder" + ("" if folder.is_absolute() else f" in {Path.cwd()}")
        found = f"no {MANIFEST} in it, so it is unfinished or not ours" if folder.exists() else missing
        raise StoreError(f"{folder}: {found}", expected=wanted, do=do) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise StoreError(f"{path}: not a manifest of ours", do=do) from None
    if kind is not None and manifest.kind != kind:
        raise StoreError(f"{folder}: {named_kind(manifest.kind)}", expected=wanted, do="mend the path in the settings")
    if manifest.schema_version != SCHEMA_VERSION:
        raise StoreError(f"{folder}: schema {manifest.schema_version}", expected=f"schema {SCHEMA_VERSION}", do=do)
    return manifest
