"""The demo world as a source: its pictures as PNG bytes, its captions, and the true relevance of each for each."""

import io
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cprd_pipeline.corpus.formats.records import CaptionRecord, ImageRecord, Records
from cprd_pipeline.corpus.scene_captions import SceneCaptions, true_relevance, write_captions
from cprd_pipeline.corpus.scenes import Scenes, draw_scenes
from cprd_pipeline.corpus.settings import UNPAIRED_SPLIT, ScenesSettings
from cprd_pipeline.progress import progress_bar

_BLOCK = 512  # pictures that share one random generator
_UNPAIRED_IMAGES, _UNPAIRED_CAPTIONS = 1, 2  # generators of their own, so that they change nothing else


class World:
    """All splits of a demo world.

    Args:
        settings: Seed and sizes. Each split has generators of its own, so that resizing one changes no other, and so have unpaired
            items, which come after all others.
    """

    def __init__(self, settings: ScenesSettings) -> None:
        self._settings = settings
        # What relevance needs; the pixels live on in the records alone.
        self._scenes: dict[str, list[Scenes]] = defaultdict(list)
        self._captions: dict[str, list[SceneCaptions]] = defaultdict(list)
        self.records = Records([], [], Path())
        unpaired = settings.unpaired_images + settings.unpaired_captions
        with progress_bar("drawing", unpaired + sum(size.images for size in settings.splits.values()), "pictures") as bar:
            # In the order of names: the order in the settings file is no part of a corpus' identity.
            for split, size in sorted(settings.splits.items()):
                for start, count in _blocks(size.images):
                    self._add_pairs(split, start, count, size.captions_each)
                    bar.advance(count)
            for start, count in _blocks(settings.unpaired_images):
                self._add_unpaired_images(start, count)
                bar.advance(count)
            for start, count in _blocks(settings.unpaired_captions):
                self._add_unpaired_captions(start, count)
                bar.advance(count)

    def _add_pairs(self, split: str, start: int, count: int, captions_each: int) -> None:
        draws = self._draws(split, start)
        scenes = draw_scenes(count, draws)
        captions = write_captions(scenes, captions_each, draws)
        ids = [f"{split}-{start + scene:06d}" for scene in range(count)]
        self._keep_images(split, ids, scenes)
        self._keep_captions(split, captions)
        self.records.captions.extend(
            CaptionRecord(f"{ids[scene]}-{place % captions_each}", text, (ids[scene],))
            for place, (text, scene) in enumerate(zip(captions.texts, captions.scenes, strict=True))
        )

    def _add_unpaired_images(self, start: int, count: int) -> None:
        scenes = draw_scenes(count, self._draws(UNPAIRED_SPLIT, start, _UNPAIRED_IMAGES))
        ids = [f"{UNPAIRED_SPLIT}-{start + scene:06d}" for scene in range(count)]
        self._keep_images(UNPAIRED_SPLIT, ids, scenes)

    def _add_unpaired_captions(self, start: int, count: int) -> None:
        draws = self._draws(UNPAIRED_SPLIT, start, _UNPAIRED_CAPTIONS)
        captions = write_captions(draw_scenes(count, draws), 1, draws)
        self._keep_captions(UNPAIRED_SPLIT, captions)
        self.records.captions.extend(
            CaptionRecord(f"{UNPAIRED_SPLIT}-{start + scene:06d}-0", text, (), UNPAIRED_SPLIT)
            for text, scene in zip(captions.texts, captions.scenes, strict=True)
        )

    def _draws(self, split: str, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._settings.seed, int.from_bytes(split.encode()), *purpose])

    def _keep_images(self, split: str, ids: list[str], scenes: Scenes) -> None:
        if self._keeps_relevance(split):
            self._scenes[split].append(scenes._replace(pixels=scenes.pixels[:0]))
        self.records.images.extend(
            ImageRecord(image_id, split, stored=_png(pixels)) for image_id, pixels in zip(ids, scenes.pixels, strict=True)
        )

    def _keep_captions(self, split: str, captions: SceneCaptions) -> None:
        if self._keeps_relevance(split):
            self._captions[split].append(captions)

    def _keeps_relevance(self, split: str) -> bool:
        return split in self._settings.splits and self._settings.splits[split].relevance

    def write_relevance(self, split: str, path: Path) -> None:
        """Write the true relevance of a split as .npy, without holding it in memory.

        Args:
            split: The split.
            path: The file: float32 [images, captions] in [0, 1], rows and columns in the order of the records.
        """
        images = sum(len(scenes.counts) for scenes in self._scenes[split])
        shape = (images, sum(len(told.texts) for told in self._captions[split]))
        matrix: npt.NDArray[np.float32] = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        row = 0
        with progress_bar(f"relevance {split}", images, "pictures") as bar:
            for scenes in self._scenes[split]:
                column, below = 0, row + len(scenes.counts)
                for told in self._captions[split]:
                    true_relevance(scenes, told, matrix[row:below, column : column + len(told.texts)])
                    column += len(told.texts)
                row = below
                bar.advance(len(scenes.counts))


def _blocks(count: int) -> list[tuple[int, int]]:
    """Start and size of each block."""
    return [(start, min(_BLOCK, count - start)) for start in range(0, count, _BLOCK)]


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    # Noise hardly compresses: the lowest level will do.
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
