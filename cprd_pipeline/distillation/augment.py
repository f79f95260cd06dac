"""Small random changes of pictures and captions, drawn from the seed and the step alone.

Pictures are changed on the device that encodes them, a micro-batch at a time: on one core, changing 224 x 224 pixels takes
longer than a GPU takes to learn from them.

Shape suffixes: N pictures of a step, B of them, C channels, H rows, W columns, K patterns.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cprd_pipeline.distillation.loop_settings import Augmentation

_PICTURES, _NOISE, _WORDS = 11, 12, 13
_CHANNELS = 3
_NOISE_PATTERNS = 128  # fresh noise every step would cost 1.5 ms of the demo student's 22


class PictureChanges(NamedTuple):
    """What a step changes of its pictures, drawn for all of them: a picture is changed alike whoever holds it.

    Args:
        most: Largest shift in pixels.
        offsets_N2: Where each picture's rows and columns begin when `most` pixels are added on every side; None for no shift.
        gains_NC11: Factor of each channel; None for none.
        brightness_NC11: Added to each channel, in units of the processed pictures; None for none.
        noise_KCHW: Patterns of noise, on the device of the pictures; None for none.
        patterns_N: Which of them is added to each picture.
    """

    most: int
    offsets_N2: Int[Tensor, "N 2"] | None
    gains_NC11: Float[Tensor, "N C 1 1"] | None
    brightness_NC11: Float[Tensor, "N C 1 1"] | None
    noise_KCHW: Float[Tensor, "K C H W"] | None
    patterns_N: Int[Tensor, " N"]

    def of(self, pixels_BCHW: Float[Tensor, "B C H W"], start: int) -> Float[Tensor, "B C H W"]:
        """The pictures, changed; on their device.

        Args:
            pixels_BCHW: Processed pictures of the step that follow each other; left as they are.
            start: Number of the first one in the step.
        """
        part, device = slice(start, start + len(pixels_BCHW)), pixels_BCHW.device
        if self.offsets_N2 is not None:
            pixels_BCHW = _shift(pixels_BCHW, self.most, self.offsets_N2[part].tolist())
        elif self.gains_NC11 is not None or self.brightness_NC11 is not None or self.noise_KCHW is not None:
            pixels_BCHW = pixels_BCHW.clone()
        # In place from here on: a new batch for every change takes several times as long.
        if self.gains_NC11 is not None:
            pixels_BCHW *= self.gains_NC11[part].to(device)
        if self.brightness_NC11 is not None:
            pixels_BCHW += self.brightness_NC11[part].to(device)
        if self.noise_KCHW is not None:
            for picture_CHW, pattern in zip(pixels_BCHW, self.patterns_N[part].tolist(), strict=True):
                picture_CHW += self.noise_KCHW[pattern]
        return pixels_BCHW


class Augmenter:
    """Augments batches of one run.

    Args:
        settings: How much of each change.
        divisor: What turns shares of the pixel range into units of the processed pictures, for each channel, by `pixel_divisor`.
        seed: Of all draws.
        device: Where pictures are changed.
    """

    def __init__(self, settings: Augmentation, divisor: Sequence[float], seed: int, device: torch.device) -> None:
        self._settings = settings
        self._unit_C = 1.0 / torch.tensor(divisor)
        self._seed = seed
        self._device = device
        self._noise: Tensor | None = None

    def pictures(self, step: int, count: int, shape: Sequence[int]) -> PictureChanges:
        """Shift, channel gain, brightness and noise; the same for the same step.

        Args:
            step: Steps done.
            count: Pictures of the step.
            shape: Of a processed picture: C, H, W.
        """
        wanted = self._settings
        generator = torch.Generator().manual_seed(self._draw_seed(_PICTURES, step))
        offsets = gains = brightness = noise = None
        patterns = torch.zeros(count, dtype=torch.int64)
        if wanted.shift_pixels:
            offsets = torch.randint(0, 2 * wanted.shift_pixels + 1, (count, 2), generator=generator)
        if wanted.channel_gain:
            gains = 1 + wanted.channel_gain * _symmetric(count, _CHANNELS, generator)
        if wanted.brightness:
            # Half the pixel range is 0.5 before the processor's division.
            brightness = wanted.brightness * 0.5 * _symmetric(count, 1, generator) * self._unit_C[:, None, None]
        if wanted.noise:
            noise = self._noise_of(shape)
            patterns = torch.randint(len(noise), (count,), generator=generator)
        return PictureChanges(wanted.shift_pixels, offsets, gains, brightness, noise, patterns)

    def captions(self, captions: Sequence[str], step: int) -> list[str]:
        """Leave words out; at least one stays. The same for the same step."""
        share = self._settings.word_dropout
        if not share:
            return list(captions)
        draws = np.random.default_rng([self._seed, _WORDS, step])
        return [_drop_words(caption, share, draws) for caption in captions]

    def _noise_of(self, shape: Sequence[int]) -> Tensor:
        if self._noise is None:
            generator = torch.Generator().manual_seed(self._draw_seed(_NOISE, 0))
            noise = torch.randn((_NOISE_PATTERNS, *shape), generator=generator)
            self._noise = (noise * (self._settings.noise / 255) * self._unit_C[:, None, None]).to(self._device)
        return self._noise

    def _draw_seed(self, purpose: int, step: int) -> int:
        return int(np.random.SeedSequence([self._seed, purpose, step]).generate_state(1, np.uint64)[0] >> 1)


def pixel_divisor(image_processor: Any) -> list[float]:
    """What an image processor divides shares of the pixel range by, for each channel.

    Args:
        image_processor: Of transformers: it brings 0..255 to 0..1 if `do_rescale`, and divides by `image_std` if `do_normalize`;
            otherwise those are not read, and may be None.
    """
    std = getattr(image_processor, "image_std", None) if getattr(image_processor, "do_normalize", None) else None
    span = 255 * image_processor.rescale_factor if getattr(image_processor, "do_rescale", None) else 255.0
    divisor: list[float] = (np.broadcast_to(1.0 if std is None else std, _CHANNELS) / span).tolist()
    return divisor


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
