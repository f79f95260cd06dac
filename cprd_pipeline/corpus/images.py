"""The one image decoder, and the reader that checks and decodes a corpus' pictures, ahead of its caller if wished."""

import io
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cprd_pipeline.corpus.reader import Corpus, Rows
from cprd_pipeline.corpus.workers import Workers
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.fingerprint import bytes_digest

DECODER_VERSION = 1
"""Raised whenever the same file would give other pixels; part of every model's fingerprint."""

MAX_PIXELS = 89_478_485
"""Pillow's own bound against decompression bombs: a quarter of a gigabyte as RGB."""

_INTEGERS_OF_16_BITS = ("PNG", "PPM")  # formats whose mode "I" holds 16-bit gray


def decode_image(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame of an image file, upright, in RGB.

    EXIF rotation is applied, transparency is composed on white, CMYK is converted, and 16-bit gray is scaled, not clipped.

    Args:
        content: The original file's bytes.
        max_pixels: Larger pictures are refused before they are decoded.

    Raises:
        CorpusError: Not an image, damaged, too large, or without a known white point; the message is the reason.
    """
    if not content:
        raise CorpusError("the file is empty")
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged metadata, which do not touch the pixels, and of bombs, for which the bound below is stricter.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as picture:
                if picture.width * picture.height > max_pixels:
                    raise CorpusError(f"{picture.width} x {picture.height} pixels", expected=f"at most {max_pixels:,} pixels")
                # First of all: a broken stream fails its first load() and passes a second one, and reading EXIF hides it.
                picture.load()
                return _rgb(ImageOps.exif_transpose(picture), picture.format)
    except CorpusError:
        raise
    except UnidentifiedImageError:
        raise CorpusError(_unknown(content)) from None
    except Exception as error:
        # Damaged files make Pillow's format plugins raise nearly everything: OSError, ValueError, struct.error, KeyError, ...
        raise CorpusError(f"cannot be decoded ({type(error).__name__}: {' '.join(str(error).split())})") from error


def _unknown(content: bytes) -> str:
    if content.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer instead of the picture (`git lfs pull` brings it)"
    return f"not an image that Pillow can read (begins with {content[:12]!r})"


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


def read_inside(root: Path, path: str) -> bytes:
    """A file's bytes, if it lies inside the root.

    Args:
        root: The image root.
        path: Relative to it.

    Raises:
        CorpusError: The path leaves the root, also through a symbolic link, or the file cannot be read.
    """
    try:
        full = (root / path).resolve()
        if not full.is_relative_to(root.resolve()):
            raise CorpusError(f"{path}: leads out of {root}", expected="a path inside the image root")
        return full.read_bytes()
    except OSError as error:
        found = f"{root / path}: {error.strerror or error}"
    except (ValueError, RuntimeError) as error:
        # A NUL character, a lone surrogate, a loop of symbolic links.
        found = f"{path!r}: {error}"
    raise CorpusError(found, do="bring the file back, or prepare the corpus again")


def as_it_is(picture: Image.Image) -> Any:
    """The picture itself."""
    return picture


class _Picture(NamedTuple):
    """What a worker needs to decode one picture of a corpus."""

    image_id: str
    digest: bytes
    root: Path
    path: str | None
    content: bytes | None


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
        # A function has its module itself, an object by its class.
        self._workers = Workers(workers, getattr(prepare, "__module__", __name__))

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

    def stream(self, rows: Sequence[int] | Rows) -> Iterator[tuple[int, Image.Image]]:
        """Pictures in the order given, with their rows; with workers some are decoded ahead.

        Raises:
            CorpusError: As `read`.
            MachineError: A worker died.
        """
        pictures = self._workers.map(_read_picture, (self._picture(int(row)) for row in rows))
        yield from zip((int(row) for row in rows), pictures, strict=True)

    def prepared(self, rows: Sequence[int] | Rows) -> Iterator[Any]:
        """What `prepare` makes of each picture, in the order given; with workers some are made ahead.

        Raises:
            CorpusError: As `read`.
            MachineError: A worker died.
        """
        tasks = ((self._picture(int(row)), self._prepare) for row in rows)
        if self._workers.count:
            yield from map(pickle.loads, self._workers.map(_prepare_and_pack, tasks))
        else:
            yield from map(_prepare, tasks)

    def _picture(self, row: int) -> _Picture:
        corpus = self._corpus
        path, content = corpus.image_paths[row].as_py(), corpus.image_bytes[row].as_py()
        return _Picture(corpus.images.ids[row], corpus.images.digests[row].tobytes(), self._root, path, content)


def _prepare(task: tuple[_Picture, Callable[[Image.Image], Any]]) -> Any:
    picture, prepare = task
    return prepare(_read_picture(picture))


def _prepare_and_pack(task: tuple[_Picture, Callable[[Image.Image], Any]]) -> bytes:
    # Pickled here: left to the pool, a tensor would travel as a shared file that dies with its worker.
    return pickle.dumps(_prepare(task), protocol=pickle.HIGHEST_PROTOCOL)


def _read_picture(picture: _Picture) -> Image.Image:
    try:
        content = read_inside(picture.root, picture.path or "") if picture.content is None else picture.content
        if bytes_digest(content) != picture.digest:
            raise CorpusError("its bytes changed since the corpus was prepared", do="run `cprd-pipeline prepare` again")
        return decode_image(content)
    except CorpusError as error:
        raise CorpusError(f"image {picture.image_id}: {error.found}", expected=error.expected, do=error.do) from None
