"""The one image decoder, and the reader that checks and decodes a corpus' pictures, ahead of its caller if wished."""

import io
import multiprocessing
import signal
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cprd_pipeline.corpus.reader import Corpus, Rows
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.fingerprint import bytes_digest

DECODER_VERSION = 1
"""Raised whenever the same file would give other pixels; part of every model's fingerprint."""

MAX_PIXELS = 89_478_485
"""Pillow's own bound against decompression bombs: a quarter of a gigabyte as RGB."""

_WINDOW_PER_WORKER = 8  # pictures that are decoded ahead: enough to hide uneven files, little enough for memory
_GRAY_16 = ("I;16", "I;16B", "I;16L", "I;16N")


def decode_image(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame of an image file, upright, in RGB.

    EXIF rotation is applied, transparency is composed on white, and 16-bit gray is scaled rather than clipped.

    Args:
        content: The original file's bytes.
        max_pixels: Larger pictures are refused before they are decoded.

    Raises:
        CorpusError: Not an image, damaged, or too large; the message is the reason.
    """
    if not content:
        raise CorpusError("the file is empty")
    try:
        with warnings.catch_warnings():
            # Our own bound decides; Pillow warns of damaged metadata that do not touch the pixels.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as picture:
                if picture.width * picture.height > max_pixels:
                    raise CorpusError(f"{picture.width} x {picture.height} pixels", expected=f"at most {max_pixels:,} pixels")
                # First of all: a broken stream fails its first load() and passes a second one, and reading EXIF hides it.
                picture.load()
                return _rgb(ImageOps.exif_transpose(picture))
    except UnidentifiedImageError:
        raise CorpusError(f"not an image that Pillow knows (begins with {content[:8]!r})") from None
    except Image.DecompressionBombError:
        raise CorpusError("too many pixels", expected=f"at most {max_pixels:,} pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        # Pillow's format plugins raise all of these for damaged files.
        raise CorpusError(f"cannot be decoded ({type(error).__name__}: {' '.join(str(error).split())})") from error


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in _GRAY_16:
        return Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode == "I":
        values = np.asarray(picture)
        # Pillow opens 16-bit PNGs as 32-bit integers in some versions: values above 255 tell.
        return Image.fromarray((values >> 8 if values.max() > 255 else values).clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        values = np.asarray(picture)
        span = float(values.max() - values.min()) or 1.0
        return Image.fromarray(((values - values.min()) * (255 / span)).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")


def read_inside(root: Path, path: str) -> bytes:
    """A file's bytes, if it lies inside the root.

    Raises:
        CorpusError: The path leaves the root, also through a symbolic link, or the file cannot be read.
    """
    full = (root / path).resolve()
    if not full.is_relative_to(root.resolve()):
        raise CorpusError(f"{path}: leads out of {root}", expected="a path inside the image root")
    try:
        return full.read_bytes()
    except OSError as error:
        raise CorpusError(
            f"{root / path}: {error.strerror or error}", do="bring the file back, or prepare the corpus again"
        ) from None


class ImageReader:
    """Pictures of a corpus, each file's digest checked.

    Args:
        corpus: The corpus.
        workers: Decoding processes; 0 decodes in this one.
    """

    def __init__(self, corpus: Corpus, workers: int = 0) -> None:
        self._corpus = corpus
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "ImageReader":
        if self._workers:
            # fork would copy the threads' locks of FAISS and torch, and hang.
            context = multiprocessing.get_context("forkserver")
            self._pool = ProcessPoolExecutor(self._workers, mp_context=context, initializer=ignore_interrupts)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def read(self, row: int) -> Image.Image:
        """One picture, decoded in this process.

        Raises:
            CorpusError: The file is gone, changed since `prepare`, or does not decode; the message names the image.
        """
        return _decode_task(*self._task(row))

    def stream(self, rows: Sequence[int] | Rows) -> Iterator[tuple[int, Image.Image]]:
        """Pictures in the order given, with their rows; with workers some are decoded ahead.

        Raises:
            CorpusError: As `read`.
        """
        if self._pool is None:
            for row in rows:
                yield int(row), self.read(int(row))
            return
        waiting: deque[tuple[int, Future[Image.Image]]] = deque()
        for row in rows:
            waiting.append((int(row), self._pool.submit(_decode_task, *self._task(int(row)))))
            if len(waiting) >= _WINDOW_PER_WORKER * self._workers:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()

    def _task(self, row: int) -> tuple[str, bytes | None, Path, str | None, bytes]:
        corpus = self._corpus
        content, path = corpus.image_bytes[row].as_py(), corpus.image_paths[row].as_py()
        return corpus.images.ids[row], content, corpus.image_root, path, corpus.images.digests[row].tobytes()


def ignore_interrupts() -> None:
    """Ctrl-C reaches the whole process group; the parent alone decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _decode_task(image_id: str, content: bytes | None, root: Path, path: str | None, digest: bytes) -> Image.Image:
    try:
        if content is None:
            content = read_inside(root, path or "")
        if bytes_digest(content) != digest:
            raise CorpusError("its bytes changed since the corpus was prepared", do="run `cprd-pipeline prepare` again")
        return decode_image(content)
    except CorpusError as error:
        raise CorpusError(f"image {image_id}: {error.found}", expected=error.expected, do=error.do) from None
