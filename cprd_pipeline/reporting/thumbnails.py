"""Pictures of the corpus as small data URIs, each of them once."""

import base64
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.progress import progress_bar

_JPEG_QUALITY = 80


def thumbnails(corpus: Corpus, rows: Iterable[int], longest_side: int) -> dict[int, str]:
    """Data URI of each image row.

    Raises:
        CorpusError: A picture is gone or is not what was prepared.
    """
    wanted = np.unique(np.fromiter(rows, dtype=np.int64))
    with ImageReader(corpus) as reader, progress_bar("thumbnails", len(wanted), "images") as bar:
        found = {}
        for row, image in reader.stream(wanted):
            found[int(row)] = data_uri(image, longest_side)
            bar.advance()
    return found


def data_uri(image: Image.Image, longest_side: int) -> str:
    """The picture, shrunk to `longest_side` (never grown), in the smaller of PNG and JPEG."""
    small = image.copy()
    small.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    encoded = [("png", _encode(small, "PNG", optimize=True)), ("jpeg", _encode(small, "JPEG", quality=_JPEG_QUALITY))]
    kind, content = min(encoded, key=lambda pair: len(pair[1]))
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _encode(image: Image.Image, form: str, **options: bool | int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
