"""Writes the pipeline's files into a folder of the user's: `cprd-pipeline init`."""

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from cprd_pipeline.errors import SettingsError
from cprd_pipeline.store.atomic import write_bytes

_IGNORED = """# What the stages write; DVC keeps the outputs, caches are made again.
/data/*
"""


def write_project(folder: Path, example: Literal["demo", "coco"] = "demo") -> list[str]:
    """Write dvc.yaml, stages/ and .gitignore.

    Args:
        folder: New, or without any of these files.
        example: What it begins with: `demo`, the generated world with every setting, or `coco`, pairs and models that are given.

    Returns:
        The files written, relative to the folder.

    Raises:
        SettingsError: One of the files is there already; nothing is overwritten.
    """
    contents = _demo() if example == "demo" else _given_pairs(example)
    contents |= {".gitignore": _IGNORED, ".dvcignore": "__pycache__\n"}
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder}: is a file", expected="a new or empty folder")
    for name in contents:
        if (folder / name).exists():
            raise SettingsError(f"{folder / name}: is there already", expected="a folder without it", do="choose a new folder")
    for name, text in contents.items():
        write_bytes(folder / name, text.encode())
    return list(contents)


def _source() -> Traversable:
    """Where the files lie: inside the installed package, or at the top of a checkout."""
    packaged = files("cprd_pipeline").joinpath("project_files")
    return packaged if packaged.is_dir() else Path(__file__).parent.parent


def _demo() -> dict[str, str]:
    """The files of this checkout, without the other examples."""
    source = _source()
    contents = {"dvc.yaml": _without_code(source.joinpath("dvc.yaml").read_text(encoding="utf-8"))}
    contents |= _stage_files(source.joinpath("stages"), "stages")
    return {name: text for name, text in contents.items() if not name.startswith("stages/coco/")}


def _given_pairs(example: str) -> dict[str, str]:
    """A folder of stages/ as the whole of stages/, its graph at the top."""
    contents = _stage_files(_source().joinpath("stages", example), "stages")
    return {"dvc.yaml": contents.pop("stages/dvc.yaml"), **contents}


def _stage_files(folder: Traversable, prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            found |= _stage_files(entry, name)
        elif entry.name.endswith(".yaml"):
            text = entry.read_text(encoding="utf-8")
            found[name] = _without_code(text) if entry.name == "dvc.yaml" else text
    return found


def _without_code(text: str) -> str:
    """dvc.yaml without its dependencies on the package's source, which an installed user has elsewhere."""
    kept = "".join(line for line in text.splitlines(keepends=True) if not line.strip().startswith("- cprd_pipeline/"))
    return re.sub(r"^    deps:\n(?!      -)", "", kept, flags=re.MULTILINE)
