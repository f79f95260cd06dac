"""From the settings' paths to the annotation files, and to the folder that image paths are relative to."""

import os
from collections.abc import Sequence
from pathlib import Path

from cprd_pipeline.corpus.formats.collector import Collector
from cprd_pipeline.corpus.formats.source import SourceFile
from cprd_pipeline.corpus.roots import Root, parse_root
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError


def open_sources(settings: FilesSettings) -> list[SourceFile]:
    """The annotation files that the settings name, patterns resolved, in the order given.

    Raises:
        CorpusError: One is missing, empty, or a Git LFS pointer, or a pattern matches nothing.
    """
    by_split = list(settings.paths.items()) if isinstance(settings.paths, dict) else [(None, settings.paths)]
    return [SourceFile(path, split) for split, patterns in by_split for given in patterns for path in _matches(given)]


def _matches(given: Path) -> list[Path]:
    if "*" not in str(given) or given.exists():
        return [given]
    base = Path(given.anchor)
    found = sorted(base.glob(str(given.relative_to(base))))
    if not found:
        raise CorpusError(
            f"{given}: matches no file", expected="a file or folder of annotations", do="mend files.paths in the settings"
        )
    return found


def collector_for(sources: Sequence[SourceFile], settings: FilesSettings) -> Collector:
    """A collector whose root is `files.images`, otherwise the folder of the annotations.

    Raises:
        CorpusError: There is no such folder.
    """
    return Collector(find_root(sources, settings), settings.rename_splits)


def find_root(sources: Sequence[SourceFile], settings: FilesSettings) -> Root:
    """What image paths are relative to: `files.images`, otherwise the folder that holds all annotations.

    When that one is called `annotations`, as COCO's is, it is the folder around it.

    Raises:
        CorpusError: There is no such folder.
    """
    if settings.images is not None:
        root = parse_root(settings.images)
        if isinstance(root, Path) and not root.is_dir():
            raise CorpusError(f"{root}: no such folder", expected="the image files", do="mend files.images in the settings")
        return root
    folders = [source.path if source.is_folder else source.path.parent for source in sources]
    common = folders[0] if len(set(folders)) == 1 else Path(os.path.commonpath([folder.absolute() for folder in folders]))
    return common.parent if common.name == "annotations" else common
