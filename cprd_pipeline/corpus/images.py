"""The one image decoder, and the reader that checks and decodes a corpus' pictures, ahead of its caller if wished."""

import io
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from cprd_pipeline.corpus.foreign import name_foreign
from cprd_pipeline.corpus.formats.records import ImageRecord
from cprd_pipeline.corpus.originals import read_unchanged
from cprd_pipeline.corpus.reader import Corpus, Rows
from cprd_pipeline.corpus.roots import Root
from cprd_pipeline.corpus.workers import Workers
from cprd_pipeline.errors import CorpusError

DECODER_VERSION = 1
"""Raised whenever the same file would give other pixels; part of every model's fingerprint."""

FORMATS = frozenset(
    ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "TGA", "TIFF", "WEBP")
)
"""What cameras, scanners, editors and the web write, by Pillow's names; its JPEG reader also reads MPO.

Nothing else is opened: for EPS Pillow starts Ghostscript with whatever lies in the file, and a reader that some other package adds
would make the pixels depend on what is installed. Since this list Pillow's rare readers (ICNS, DDS, XPM, FITS and the like) are
refused where they gave pixels before; the version above stays, since no file gives other pixels."""

MAX_PIXELS = 89_478_485
"""Pillow's own bound against decompression bombs: a quarter of a gigabyte as RGB."""

MAX_RATIO = 200
"""Longer side over shorter: an image processor that brings the shorter side of a 1 x 60000 strip to 224 asks for gigabytes."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF, and a value of the second

_TASK = 4  # pictures that a worker gets at once: a task alone costs its giver as much time as it takes to receive one
_INTEGERS_OF_16_BITS = ("PNG", "PPM")  # formats whose mode "I" holds 16-bit gray


def decode_image(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame of an image file, upright, in RGB.

    Rotation by EXIF or XMP is applied, transparency composed on white, CMYK converted, and 16-bit gray scaled, not clipped.

    Args:
        content: The original file's bytes.
        max_pixels: Larger pictures are refused before they are decoded.

    Raises:
        CorpusError: Not an image, damaged, too large, too narrow, or without a known white point; the message is the reason.
    """
    if not content:
        raise CorpusError("the file is empty")
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged metadata, which do not touch the pixels, and of bombs, for which the bound below is stricter.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_formats()) as picture:
                _check_size(picture, max_pixels)
                # First of all: a broken stream fails its first load() and passes a second one, and reading EXIF hides it.
                picture.load()
                _check_gray(picture)
                file_format = picture.format
                ImageOps.exif_transpose(picture, in_place=True)  # otherwise it copies what it need not turn
                return _rgb(picture, file_format)
    except CorpusError:
        raise
    except UnidentifiedImageError:
        raise CorpusError(name_foreign(content)) from None
    except Exception as error:
        # Damaged files make Pillow's format plugins raise nearly everything: OSError, ValueError, struct.error, KeyError, ...
        raise CorpusError(f"cannot be decoded ({type(error).__name__}: {' '.join(str(error).split())})") from error


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow reads, in the order in which it tries them."""
    Image.init()
    return tuple(name for name in Image.ID if name in FORMATS)


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise CorpusError(f"{width} x {height} pixels", expected=f"at most {max_pixels:,} pixels")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise CorpusError(f"{width} x {height} pixels", expected=f"no side more than {MAX_RATIO} times the other")


def _check_gray(picture: Image.Image) -> None:
    """Refuse the kinds of TIFF that Pillow passes on unscaled or inverted: 12 bits come as 16, white may be zero."""
    if not picture.mode.startswith("I;16") or not isinstance(picture, TiffImageFile):
        return
    bits, photometric = picture.tag_v2.get(_BITS_PER_SAMPLE), picture.tag_v2.get(_PHOTOMETRIC)
    if bits != (16,) or photometric == _WHITE_IS_ZERO:
        raise CorpusError(f"gray TIFF of {bits} bits, photometric {photometric}", expected="16 bits with black at zero")


def _rgb(picture: Image.Image, file_format: str | None) -> Image.Image:
    if picture.mode.startswith("I;16") or (picture.mode == "I" and file_format in _INTEGERS_OF_16_BITS):
        return _rgb_of_16_bits(picture)
    if picture.mode in ("I", "F"):
        raise CorpusError(f"pixels of mode {picture.mode} have no known white", expected="8 or 16 bits per channel")
    if picture.has_transparency_data:
        colours = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return picture.convert("RGB")


def _rgb_of_16_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture)
    # The upper byte: convert("RGB") would clip, and turn nearly everything white.
    gray = (values.astype(np.uint32) >> 8).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        gray[values == transparent] = 255
    return Image.fromarray(gray).convert("RGB")


def as_it_is(picture: Image.Image) -> Any:
    """The picture itself."""
    return picture


class _Picture(NamedTuple):
    """What a worker needs to decode one picture of a corpus."""

    root: Root
    image: ImageRecord
    digest: bytes


class ImageReader:
    """Pictures of a corpus, each file's digest checked.

    Args:
        corpus: The corpus.
        workers: Decoding processes; 0 decodes in this one.
        prepare: What `prepared` makes of a decoded picture, in the decoding process; must pickle when there are workers.
    """

    def __init__(self, corpus: Corpus, workers: int = 0, prepare: Callable[[Image.Image], Any] = as_it_is) -> None:
        self._corpus = corpus
        self._root = corpus.image_root
        self._prepare = prepare
        # A function has its module itself, an object by its class; what it holds may need others, which it names then.
        self._workers = Workers(workers, getattr(prepare, "__module__", __name__), *getattr(prepare, "modules", ()))

    def __enter__(self) -> "ImageReader":
        self._workers.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._workers.__exit__(kind, error, traceback)

    def read(self, row: int) -> Image.Image:
        """One picture in RGB, decoded in this process.

        Raises:
            CorpusError: The file is gone, changed since `prepare`, or does not decode; the message names the image.
        """
        return _read_picture(self._picture(row))

    def prepared(self, rows: Sequence[int] | Rows) -> Iterator[Any]:
        """What `prepare` makes of each picture, in the order given; with workers some are made ahead.

        Raises:
            CorpusError: As `read`.
            MachineError: A worker died.
        """
        if not self._workers.count:
            yield from (self._prepare(self.read(int(row))) for row in rows)
            return
        # Whole pictures may be large, and all that is in flight lies in memory.
        size = 1 if self._prepare is as_it_is else _TASK
        groups = (rows[start : start + size] for start in range(0, len(rows), size))
        tasks = (([self._picture(int(row)) for row in group], self._prepare) for group in groups)
        for packed in self._workers.map(_prepare_and_pack, tasks):
            yield from pickle.loads(packed)

    def _picture(self, row: int) -> _Picture:
        return _Picture(self._root, self._corpus.original(row), self._corpus.images.digests[row].tobytes())


def _prepare_and_pack(task: tuple[Sequence[_Picture], Callable[[Image.Image], Any]]) -> bytes:
    pictures, prepare = task
    # Pickled here: left to the pool, a tensor would travel as a shared file that dies with its worker.
    return pickle.dumps([prepare(_read_picture(picture)) for picture in pictures], protocol=pickle.HIGHEST_PROTOCOL)


def _read_picture(picture: _Picture) -> Image.Image:
    try:
        return decode_image(read_unchanged(*picture))
    except CorpusError as error:
        raise CorpusError(f"image {picture.image.image_id}: {error.found}", expected=error.expected, do=error.do) from None
