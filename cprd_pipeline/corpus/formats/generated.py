"""The demo world as a source: nothing to download."""

import io

import numpy as np
from PIL import Image

from cprd_pipeline.corpus.formats.records import CaptionRecord, ImageRecord, Source
from cprd_pipeline.corpus.scene_captions import true_relevance, write_captions
from cprd_pipeline.corpus.scenes import draw_scenes
from cprd_pipeline.corpus.settings import ScenesSettings
from cprd_pipeline.store.fingerprint import json_digest


def generate_scenes(settings: ScenesSettings) -> Source:
    """Generate all splits; each depends on the seed and its own name alone."""
    source = Source(image_root=".", digest=json_digest(["scenes", settings.as_json()]))
    for name, size in settings.splits.items():
        draws = np.random.default_rng([settings.seed, *name.encode()])
        scenes = draw_scenes(size.images, draws)
        captions = write_captions(scenes, size.captions_each, draws)
        for row, pixels in enumerate(scenes.pixels):
            source.images.append(ImageRecord(f"{name}-{row:05d}", name, content=_png(pixels)))
        for number, (text, scene) in enumerate(zip(captions.texts, captions.scenes, strict=True)):
            caption_id = f"{name}-{scene:05d}-{number % size.captions_each}"
            source.captions.append(CaptionRecord(caption_id, name, text))
            source.positives.append((f"{name}-{scene:05d}", caption_id))
        if size.relevance:
            source.relevance[name] = true_relevance(scenes, captions)
    return source


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    # Noise does not compress; the lowest level writes three times as fast.
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
