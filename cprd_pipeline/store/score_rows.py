"""Scores in memory: each digest once, everything else numbers, so that sorting and looking up touch no bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.fingerprint import DIGEST_BYTES, DigestArray, digest_keys

DIRECTIONS = ("both", "i2t", "t2i")
"""What the column `direction` may say, ascending."""

SCHEMA = pa.schema(
    [
        pa.field("teacher", pa.string(), nullable=False),
        # Delta has no fixed-size binary type.
        pa.field("image_digest", pa.binary(), nullable=False),
        pa.field("caption_digest", pa.binary(), nullable=False),
        pa.field("direction", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
"""Columns of the table, and of an exported file."""

COLUMNS = SCHEMA.names[1:]
"""Columns of a data file; the teacher stands in the name of its folder."""


@dataclass(frozen=True)
class ScoreRows:
    """Scores of one teacher.

    Args:
        images: The image digests that occur; uint8 [I, 16].
        captions: The caption digests that occur; uint8 [C, 16].
        image: Row of `images`, int32 [N].
        caption: Row of `captions`, int32 [N].
        direction: Index into `DIRECTIONS`, int8 [N].
        scores: Raw scores, float32 [N], higher is better.
    """

    images: DigestArray
    captions: DigestArray
    image: npt.NDArray[np.int32]
    caption: npt.NDArray[np.int32]
    direction: npt.NDArray[np.int8]
    scores: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_] | slice) -> "ScoreRows":
        """Some of the rows; digests that no row needs any more stay."""
        return ScoreRows(self.images, self.captions, self.image[rows], self.caption[rows], self.direction[rows], self.scores[rows])


def from_digests(images: DigestArray, captions: DigestArray, direction: str, scores: npt.NDArray[np.float32]) -> ScoreRows:
    """Rows from the digests of each pair; [N, 16] both."""
    image, of_image = _distinct(images)
    caption, of_caption = _distinct(captions)
    directions = np.full(len(scores), DIRECTIONS.index(direction), dtype=np.int8)
    return ScoreRows(image, caption, of_image, of_caption, directions, scores)


def from_arrow(table: pa.Table) -> ScoreRows:
    """Rows from the four columns of a data file.

    Raises:
        StoreError: A null, a digest of another length, an unknown direction, or a score that is not finite.
    """
    image, of_image = _dictionary(table["image_digest"])
    caption, of_caption = _dictionary(table["caption_digest"])
    names, direction = _dictionary(table["direction"])
    unknown = sorted(set(names.to_pylist()) - set(DIRECTIONS))
    if unknown:
        raise StoreError(f"the direction {unknown[0]!r}", expected=" or ".join(DIRECTIONS))
    index = np.array([DIRECTIONS.index(name) for name in names.to_pylist()], dtype=np.int8)
    scores = table["score"]
    bad = scores.null_count + int((~np.isfinite(scores.drop_null().to_numpy())).sum())
    if bad:
        raise StoreError(f"{bad:,} of {len(scores):,} scores are not finite", expected="finite scores")
    return ScoreRows(_digests(image), _digests(caption), of_image, of_caption, index[direction], scores.to_numpy())


def to_arrow(rows: ScoreRows) -> pa.Table:
    """The four columns of a data file, keys dictionary-encoded."""
    return pa.table(
        [
            pa.DictionaryArray.from_arrays(rows.image, binary(rows.images)),
            pa.DictionaryArray.from_arrays(rows.caption, binary(rows.captions)),
            pa.DictionaryArray.from_arrays(rows.direction, pa.array(DIRECTIONS)),
            pa.array(rows.scores, pa.float32()),
        ],
        schema=_ENCODED,
    )


def sort_rows(parts: Sequence[ScoreRows]) -> ScoreRows:
    """The rows of all parts (at least one), sorted by (image digest, caption digest, direction).

    Each digest stands there once, and only if a row needs it. Of a key that occurs several times the lowest score stays.
    """
    images, image = _unify([(part.images, part.image) for part in parts])
    captions, caption = _unify([(part.captions, part.caption) for part in parts])
    direction = np.concatenate([part.direction for part in parts])
    # Adding zero makes 0.0 of -0.0: as equals, which of them is the lower one would be left to chance.
    scores = np.concatenate([part.scores for part in parts]) + np.float32(0)
    key = (image.astype(np.int64) * max(1, len(captions)) + caption) * len(DIRECTIONS) + direction
    order = np.argsort(key, kind="stable")
    order, scores = first_and_lowest(key, order, scores)
    return ScoreRows(images, captions, image[order], caption[order], direction[order], scores)


def first_and_lowest(
    keys: npt.NDArray[np.int64], order: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """One place of each key, in `order`'s order, and the lowest score of each: the rule for keys that occur twice.

    Args:
        keys: Keys, [N].
        order: What sorts them, [N].
        scores: Scores, [N].
    """
    ordered = keys[order]
    is_first = np.empty(len(ordered), dtype=np.bool_)
    is_first[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    starts = np.flatnonzero(is_first)
    if not len(starts):
        return order, scores
    return order[starts], np.minimum.reduceat(scores[order], starts)


_ENCODED = pa.schema(
    [
        pa.field("image_digest", pa.dictionary(pa.int32(), pa.binary()), nullable=False),
        pa.field("caption_digest", pa.dictionary(pa.int32(), pa.binary()), nullable=False),
        pa.field("direction", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        SCHEMA.field("score"),
    ]
)


def binary(digests: DigestArray) -> pa.Array:
    """Digests [N, 16] as an Arrow `binary` array: Delta has no fixed-size binary type."""
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(DIGEST_BYTES), len(digests), [None, pa.py_buffer(np.ascontiguousarray(digests))]
    )
    return fixed.cast(pa.binary())


def _distinct(digests: DigestArray) -> tuple[DigestArray, npt.NDArray[np.int32]]:
    keys, inverse = np.unique(digest_keys(digests), return_inverse=True)
    return keys.view(np.uint8).reshape(-1, DIGEST_BYTES), inverse.astype(np.int32)


def _unify(parts: list[tuple[DigestArray, npt.NDArray[np.int32]]]) -> tuple[DigestArray, npt.NDArray[np.int32]]:
    """One ascending list of the digests that rows need, and each row's place in it."""
    needed, renumbered, start = [], [], 0
    for digests, rows in parts:
        used = np.zeros(len(digests), dtype=np.bool_)
        used[rows] = True
        renumbered.append((np.cumsum(used, dtype=np.int32) + (start - 1))[rows].astype(np.int32))
        needed.append(digests[used])
        start += len(needed[-1])
    distinct, place = _distinct(np.concatenate(needed))
    return distinct, place[np.concatenate(renumbered)]


def _dictionary(column: pa.ChunkedArray) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    if column.null_count:
        raise StoreError(f"{column.null_count:,} rows without a key", expected="no nulls")
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    return whole.dictionary, whole.indices.to_numpy().astype(np.int32, copy=False)


def _digests(values: pa.Array) -> DigestArray:
    for length in pc.unique(pc.binary_length(values)).to_pylist():
        if length != DIGEST_BYTES:
            raise StoreError(f"digests of {length} bytes", expected=f"{DIGEST_BYTES} bytes")
    fixed = values.cast(pa.binary(DIGEST_BYTES))
    start = fixed.offset * DIGEST_BYTES
    return np.frombuffer(fixed.buffers()[1], np.uint8, len(values) * DIGEST_BYTES, start).reshape(-1, DIGEST_BYTES)
