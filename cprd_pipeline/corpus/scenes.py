"""The demo world: pictures of a few coloured shapes on a grid, generated from a seed.

What a picture shows is known exactly, so that the true relevance of any caption to any picture can be computed.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

WORLD_VERSION = 1
"""Raised whenever the same seed would give other pictures, captions or relevance."""

SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
COLOURS = {
    "red": (220, 50, 50),
    "green": (50, 190, 70),
    "blue": (60, 90, 230),
    "yellow": (230, 210, 50),
    "purple": (170, 60, 200),
    "white": (235, 235, 235),
}
SIZES = ("small", "large")
RELATIONS = ("left", "right", "above", "below")
IMAGE_SIZE = 48
MOST_OBJECTS = 4
ABSENT = -9
"""Stands in a scene's attributes where there is no such object."""

_CELL = IMAGE_SIZE // 3
_RADIUS = (4.0, 7.0)
_MARGIN = 6.0  # a relation holds from this many pixels on
_SUPERSAMPLING = 2
_PIXEL_NOISE = 8.0

IntArray = npt.NDArray[np.int64]


class Scenes(NamedTuple):
    """What N pictures show.

    Args:
        attributes: Shape, colour and size of each object; int64 [N, 4, 3], `ABSENT` beyond a picture's objects.
        centres: x and y of each object in pixels; float64 [N, 4, 2].
        counts: Objects of each picture, 2 to 4; int64 [N].
        pixels: uint8 [N, 48, 48, 3].
    """

    attributes: IntArray
    centres: npt.NDArray[np.float64]
    counts: IntArray
    pixels: npt.NDArray[np.uint8]


def draw_scenes(count: int, draws: np.random.Generator) -> Scenes:
    """Generate pictures: 2 to 4 objects in different cells of a jittered 3 x 3 grid on a dark noisy ground."""
    attributes = np.full((count, MOST_OBJECTS, 3), ABSENT, dtype=np.int64)
    centres = np.zeros((count, MOST_OBJECTS, 2))
    counts = draws.integers(2, MOST_OBJECTS + 1, count)
    pixels = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    for scene, objects in enumerate(counts):
        cells = draws.permutation(9)[:objects]
        attributes[scene, :objects] = draws.integers((len(SHAPES), len(COLOURS), len(SIZES)), size=(objects, 3))
        grid = np.stack([cells % 3, cells // 3], axis=1) * _CELL + _CELL / 2
        centres[scene, :objects] = grid + draws.uniform(-1.5, 1.5, (objects, 2))
        drawn = _draw(attributes[scene, :objects], centres[scene, :objects], draws)
        pixels[scene] = np.clip(drawn + draws.normal(0, _PIXEL_NOISE, drawn.shape), 0, 255)
    return Scenes(attributes, centres, counts, pixels)


def relations_hold(centres: npt.NDArray[np.float64], attributes: IntArray) -> npt.NDArray[np.bool_]:
    """Which relations hold between which objects.

    Returns:
        bool [N, 4, 4, 4]: picture, first object, second object, relation (in the order of `RELATIONS`).
    """
    offset = centres[:, :, None] - centres[:, None]
    present = attributes[:, :, 0] != ABSENT
    both = present[:, :, None] & present[:, None]
    x, y = offset[..., 0], offset[..., 1]
    holds: npt.NDArray[np.bool_] = np.stack([x < -_MARGIN, x > _MARGIN, y < -_MARGIN, y > _MARGIN], axis=-1) & both[..., None]
    return holds


def _draw(attributes: IntArray, centres: npt.NDArray[np.float64], draws: np.random.Generator) -> npt.NDArray[np.uint8]:
    size = IMAGE_SIZE * _SUPERSAMPLING
    ground = tuple(int(value) for value in draws.integers(20, 70, 3))
    picture = Image.new("RGB", (size, size), ground)
    canvas = ImageDraw.Draw(picture)
    palette = list(COLOURS.values())
    for (shape, colour, large), centre in zip(attributes, centres, strict=True):
        radius = (_RADIUS[large] + draws.uniform(-0.4, 0.4)) * _SUPERSAMPLING
        tint = np.clip(np.array(palette[colour]) + draws.normal(0, 12, 3), 0, 255).astype(int)
        x, y = (centre * _SUPERSAMPLING).tolist()
        _draw_shape(canvas, SHAPES[shape], x, y, radius, tuple(tint.tolist()), ground)
    return np.asarray(picture.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX))


def _draw_shape(
    canvas: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, fill: tuple[int, ...], ground: tuple[int, ...]
) -> None:
    if shape == "circle":
        canvas.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif shape == "square":
        canvas.rectangle((x - 0.9 * r, y - 0.9 * r, x + 0.9 * r, y + 0.9 * r), fill=fill)
    elif shape == "triangle":
        canvas.polygon([(x, y - r), (x - r, y + 0.85 * r), (x + r, y + 0.85 * r)], fill=fill)
    elif shape == "cross":
        arm = 0.36 * r
        canvas.rectangle((x - arm, y - r, x + arm, y + r), fill=fill)
        canvas.rectangle((x - r, y - arm, x + r, y + arm), fill=fill)
    elif shape == "ring":
        canvas.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        canvas.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=ground)
    else:
        canvas.polygon([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], fill=fill)
