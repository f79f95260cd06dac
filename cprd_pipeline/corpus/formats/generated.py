"""The demo world as a source: its pictures as PNG bytes, its captions, and the true relevance of each for each."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cprd_pipeline.corpus.formats.records import CaptionRecord, ImageRecord, Records
from cprd_pipeline.corpus.scene_captions import SceneCaptions, true_relevance, write_captions
from cprd_pipeline.corpus.scenes import Scenes, draw_scenes
from cprd_pipeline.corpus.settings import ScenesSettings
from cprd_pipeline.progress import progress_bar

_BLOCK = 512  # pictures that share one random generator


class _Block(NamedTuple):
    scenes: Scenes
    captions: SceneCaptions


class World:
    """All splits of a demo world.

    Args:
        settings: Seed and sizes. Each split has generators of its own, so that resizing one changes no other.
    """

    def __init__(self, settings: ScenesSettings) -> None:
        self._settings = settings
        self._blocks: dict[str, list[_Block]] = {}
        self.records = Records([], [], Path())
        with progress_bar("drawing", sum(size.images for size in settings.splits.values()), "pictures") as bar:
            # In the order of names: the order in the settings file is no part of a corpus' identity.
            for split, size in sorted(settings.splits.items()):
                self._blocks[split] = []  # what relevance needs; the pixels live on in the records alone
                for start in range(0, size.images, _BLOCK):
                    count = min(_BLOCK, size.images - start)
                    self._add_block(split, start, count, size.captions_each)
                    bar.advance(count)

    def _add_block(self, split: str, start: int, count: int, captions_each: int) -> None:
        draws = np.random.default_rng([self._settings.seed, int.from_bytes(split.encode()), start])
        scenes = draw_scenes(count, draws)
        captions = write_captions(scenes, captions_each, draws)
        if self._settings.splits[split].relevance:
            self._blocks[split].append(_Block(scenes._replace(pixels=scenes.pixels[:0]), captions))
        ids = [f"{split}-{start + scene:06d}" for scene in range(count)]
        self.records.images.extend(
            ImageRecord(image_id, split, stored=_png(pixels)) for image_id, pixels in zip(ids, scenes.pixels, strict=True)
        )
        self.records.captions.extend(
            CaptionRecord(f"{ids[scene]}-{place % captions_each}", text, (ids[scene],))
            for place, (text, scene) in enumerate(zip(captions.texts, captions.scenes, strict=True))
        )

    def write_relevance(self, split: str, path: Path) -> None:
        """Write the true relevance of a split as .npy, without holding it in memory.

        Args:
            split: The split.
            path: The file: float32 [images, captions] in [0, 1], rows and columns in the order of the records.
        """
        size = self._settings.splits[split]
        shape = (size.images, size.images * size.captions_each)
        matrix: npt.NDArray[np.float32] = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        with progress_bar(f"relevance {split}", size.images, "pictures") as bar:
            for row, pictures in enumerate(self._blocks[split]):
                rows = slice(row * _BLOCK, row * _BLOCK + len(pictures.scenes.counts))
                for column, told in enumerate(self._blocks[split]):
                    first = column * _BLOCK * size.captions_each
                    true_relevance(pictures.scenes, told.captions, matrix[rows, first : first + len(told.captions.texts)])
                bar.advance(len(pictures.scenes.counts))


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    # Noise hardly compresses: the lowest level will do.
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
