"""Which column, or JSON key, holds what."""

from collections.abc import Sequence
from typing import NamedTuple

from cprd_pipeline.corpus.settings import ColumnSettings
from cprd_pipeline.errors import CorpusError

_USUAL = {
    "image": (
        "image",
        "image_path",
        "filepath",
        "file_path",
        "path",
        "file_name",
        "filename",
        "image_name",
        "image_file",
        "img_path",
        "img",
    ),
    "caption": ("captions", "caption", "text", "texts", "sentences", "sentence", "comment", "raw", "description"),
    "split": ("split",),
    "image_id": ("image_id", "imgid", "cocoid"),
    "caption_id": ("caption_id", "sentid", "sentids"),
}


class Columns(NamedTuple):
    """Names of columns; None for what a table does not have."""

    image: str | None
    caption: str | None
    split: str | None
    image_id: str | None
    caption_id: str | None


def find_columns(names: Sequence[str], settings: ColumnSettings, where: str) -> Columns:
    """The columns among the names of a table: those of the settings, otherwise those with the usual names, whatever their case.

    Raises:
        CorpusError: A column of the settings is missing.
    """
    usual = {name.strip().lower(): name for name in reversed(names)}
    found: dict[str, str | None] = {}
    for role, candidates in _USUAL.items():
        wanted: str | None = getattr(settings, role)
        if wanted is not None and wanted not in names:
            raise CorpusError(
                f"{where}: no column {wanted!r}", expected=f"one of {_listed(names)}", do=f"mend files.columns.{role}"
            )
        found[role] = wanted or next((usual[name] for name in candidates if name in usual), None)
    return Columns(**found)


def need_columns(names: Sequence[str], settings: ColumnSettings, where: str) -> Columns:
    """As `find_columns`, for a table that must hold images and captions.

    Raises:
        CorpusError: Neither the settings nor the usual names find both.
    """
    columns = find_columns(names, settings, where)
    missing = [role for role in ("image", "caption") if getattr(columns, role) is None]
    if missing:
        raise CorpusError(
            f"{where}: no column for the {' and the '.join(missing)} among {_listed(names)}",
            do=" and ".join(f"name it in files.columns.{role}" for role in missing),
        )
    return columns


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:30]) for name in names[:8])
    return f"{shown}, ..." if len(names) > 8 else shown
