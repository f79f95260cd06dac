"""Small random changes of pictures and captions, drawn from the seed and the step alone.

Shape suffixes: B pictures, C channels, H rows, W columns.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.distillation.loop_settings import Augmentation

_PICTURES, _NOISE, _WORDS = 11, 12, 13
_NOISE_PATTERNS = 128  # fresh noise every step would cost 1.5 ms of the demo student's 22


class Augmenter:
    """Augments batches of one run.

    Args:
        settings: How much of each change.
        pixel_std: The image processor's standard deviation per channel, which turns shares of the pixel range into
            units of the processed pictures.
        seed: Of all draws.
    """

    def __init__(self, settings: Augmentation, pixel_std: Sequence[float], seed: int) -> None:
        self._settings = settings
        self._unit_C = 1.0 / torch.tensor(pixel_std)
        self._seed = seed
        self._noise: Tensor | None = None

    def pictures(
        self, pixels_BCHW: Float[Tensor, "B C H W"], step: int, part: slice | None = None, count: int | None = None
    ) -> Float[Tensor, "B C H W"]:
        """Shift, channel gain, brightness and noise; the same for the same step.

        Args:
            pixels_BCHW: Processed pictures, or a part of those of the step.
            step: Steps done.
            part: Which part they are; None for all. A picture is changed alike whoever holds it.
            count: Pictures of the whole step.
        """
        wanted, part = self._settings, part or slice(None)
        generator = torch.Generator().manual_seed(self._draw_seed(_PICTURES, step))
        count = len(pixels_BCHW) if count is None else count
        if wanted.shift_pixels:
            offsets = torch.randint(0, 2 * wanted.shift_pixels + 1, (count, 2), generator=generator)
            pixels_BCHW = _shift(pixels_BCHW, wanted.shift_pixels, offsets[part].tolist())
        elif wanted.channel_gain or wanted.brightness or wanted.noise:
            pixels_BCHW = pixels_BCHW.clone()
        # In place from here on: a new batch for every change takes several times as long.
        if wanted.channel_gain:
            pixels_BCHW *= 1 + wanted.channel_gain * _symmetric(count, 3, generator)[part]
        if wanted.brightness:
            # Half the pixel range is 0.5 before the processor divides by its standard deviation.
            pixels_BCHW += wanted.brightness * 0.5 * _symmetric(count, 1, generator)[part] * self._unit_C[:, None, None]
        if wanted.noise:
            noise = self._noise_for(pixels_BCHW)
            patterns = torch.randint(len(noise), (count,), generator=generator)[part].tolist()
            for picture_CHW, pattern in zip(pixels_BCHW, patterns, strict=True):
                picture_CHW += noise[pattern]
        return pixels_BCHW

    def captions(self, captions: Sequence[str], step: int) -> list[str]:
        """Leave words out; at least one stays. The same for the same step."""
        share = self._settings.word_dropout
        if not share:
            return list(captions)
        draws = np.random.default_rng([self._seed, _WORDS, step])
        return [_drop_words(caption, share, draws) for caption in captions]

    def _noise_for(self, pixels_BCHW: Tensor) -> Tensor:
        if self._noise is None:
            generator = torch.Generator().manual_seed(self._draw_seed(_NOISE, 0))
            shape = (_NOISE_PATTERNS, *pixels_BCHW.shape[1:])
            self._noise = torch.randn(shape, generator=generator) * (self._settings.noise / 255) * self._unit_C[:, None, None]
        return self._noise

    def _draw_seed(self, purpose: int, step: int) -> int:
        return int(np.random.SeedSequence([self._seed, purpose, step]).generate_state(1, np.uint64)[0] >> 1)


def _shift(pixels_BCHW: Tensor, most: int, offsets: Sequence[Sequence[int]]) -> Tensor:
    height, width = pixels_BCHW.shape[2:]
    padded = torch.nn.functional.pad(pixels_BCHW, (most, most, most, most), mode="replicate")
    # Slices copy whole rows; one gather over all pixels takes ten times as long.
    return torch.stack([picture[:, y : y + height, x : x + width] for picture, (y, x) in zip(padded, offsets, strict=True)])


def _symmetric(count: int, channels: int, generator: torch.Generator) -> Tensor:
    """Uniform in [-1, 1], one value a picture and channel; [count, channels, 1, 1]."""
    return torch.rand(count, channels, 1, 1, generator=generator) * 2 - 1


def _drop_words(caption: str, share: float, draws: np.random.Generator) -> str:
    words = caption.split()
    kept = [word for word, draw in zip(words, draws.random(len(words)), strict=True) if draw >= share]
    return " ".join(kept or words[:1])
