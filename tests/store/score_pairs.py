"""Scores of small numbers: what the tests of the score store share."""

from pathlib import Path

import numpy as np

from cprd_pipeline.store.fingerprint import DigestArray, bytes_digest, stack_digests
from cprd_pipeline.store.scores import ScoreStore

Pairs = dict[tuple[int, int], float]


def digests(values: list[int]) -> DigestArray:
    """Of numbers, the first with trailing zero bytes."""
    return stack_digests(bytes([7]) + bytes(15) if value == 0 else bytes_digest(str(value).encode()) for value in values)


def append(store: ScoreStore, pairs: Pairs, teacher: str = "t", direction: str = "both") -> None:
    """Pairs of (image, caption) numbers with their scores."""
    images, captions = zip(*pairs, strict=True)
    scores = np.array(list(pairs.values()), dtype=np.float32)
    store.append(teacher, direction, digests(list(images)), digests(list(captions)), scores)


def known(store: ScoreStore, images: list[int], captions: list[int], teacher: str = "t", direction: str = "both") -> Pairs:
    """(image, caption) numbers to scores, for a corpus of these contents."""
    found = store.known(teacher, direction, digests(images), digests(captions))
    assert found.codes.dtype == np.int64
    assert found.scores.dtype == np.float32
    assert (np.diff(found.codes) > 0).all()
    return {
        (images[code // len(captions)], captions[code % len(captions)]): float(score)
        for code, score in zip(found.codes.tolist(), found.scores, strict=True)
    }


def data_files(store: ScoreStore, teacher: str = "t") -> list[Path]:
    """Data files in the folder of one teacher, whether the table lists them or not."""
    return sorted(Path(store.uri, f"teacher={teacher}").glob("*.parquet"))


def flip_a_bit(file: Path, byte: int) -> None:
    """Damage one byte of a file."""
    content = bytearray(file.read_bytes())
    content[byte] ^= 4
    file.write_bytes(content)
