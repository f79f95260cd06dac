"""The score store: every teacher score that was ever bought, found again by content.

A Delta table: appends are atomic, several writers may append at once, and Polars, Spark and DuckDB read it.
Rows are keyed by content digests, so scores outlive re-imports, new splits, grown corpora and new mining rounds.
"""

from collections.abc import Iterator
from typing import NamedTuple

import deltalake
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from deltalake.exceptions import CommitFailedError, DeltaError

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.fingerprint import DIGEST_BYTES, DigestArray

Direction = str
"""`i2t` or `t2i` for a teacher whose score depends on the roles, `both` for all others; never null."""

_SCHEMA = pa.schema(
    [
        pa.field("teacher", pa.string(), nullable=False),
        # Delta has no fixed-size binary type.
        pa.field("image_digest", pa.binary(), nullable=False),
        pa.field("caption_digest", pa.binary(), nullable=False),
        pa.field("direction", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)


class KnownScores(NamedTuple):
    """Scores of the pairs of one corpus.

    Args:
        codes: image row * number of captions + caption row; int64 [N], ascending, unique.
        scores: Raw teacher scores, float32 [N], higher is better.
    """

    codes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class ScoreStore:
    """Append-only table of teacher scores.

    Args:
        uri: Folder or object-store address of the Delta table; made at the first append.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def append(
        self, teacher: str, direction: Direction, images: DigestArray, captions: DigestArray, scores: npt.NDArray[np.float32]
    ) -> None:
        """Commit scores in one atomic append.

        Args:
            teacher: Fingerprint of the teacher.
            direction: See `Direction`.
            images: Image digests, uint8 [N, 16].
            captions: Caption digests, uint8 [N, 16].
            scores: Raw scores, float32 [N], higher is better.

        Raises:
            StoreError: A score is NaN or infinite, or the store cannot be written; nothing of the batch is stored then.
        """
        bad = ~np.isfinite(scores)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            pair = f"image {images[first].tobytes().hex()}, caption {captions[first].tobytes().hex()}"
            raise StoreError(
                f"{int(bad.sum())} of {len(scores)} teacher scores are not finite (first: {scores[first]} for {pair})",
                expected="finite scores",
                do="check the teacher's weights and dtype; nothing of this part was stored",
            )
        table = pa.table(
            [
                pa.array([teacher] * len(scores), pa.string()),
                _binary(images),
                _binary(captions),
                pa.array([direction] * len(scores), pa.string()),
                pa.array(scores, pa.float32()),
            ],
            schema=_SCHEMA,
        )
        try:
            self._commit(table)
        except (DeltaError, OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise StoreError(
                f"{self.uri}: scores cannot be added to the store ({reason})",
                do="mend this (disk space, rights, address) and run the same command again; earlier parts are kept",
            ) from error

    def _commit(self, table: pa.Table) -> None:
        first = not deltalake.DeltaTable.is_deltatable(self.uri)
        try:
            deltalake.write_deltalake(self.uri, table, mode="append", partition_by=["teacher"])
        except CommitFailedError:
            # Appends never conflict, but two writers may both find no table and make one: the other's is there now.
            if not first:
                raise
            deltalake.write_deltalake(self.uri, table, mode="append", partition_by=["teacher"])

    def count(self, teacher: str) -> int:
        """Number of rows of one teacher, double ones included."""
        return sum(batch.num_rows for batch in self._batches(teacher, ["direction"]))

    def known(self, teacher: str, direction: Direction, images: DigestArray, captions: DigestArray) -> KnownScores:
        """Scores of all pairs of a corpus that the store has.

        Equal digests are one content: each corpus row with the digest gets the score. Should a key occur twice in
        the store (two writers), the lower score counts.

        Args:
            teacher: Fingerprint of the teacher.
            direction: See `Direction`.
            images: Digest of each image row; uint8 [I, 16], distinct.
            captions: Digest of each caption row; uint8 [C, 16], distinct.
        """
        image_rows, caption_rows = _row_table(images, "image_digest", "i"), _row_table(captions, "caption_digest", "c")
        found: list[pl.DataFrame] = [pl.DataFrame(schema={"code": pl.Int64, "score": pl.Float32})]
        for batch in self._batches(teacher, ["image_digest", "caption_digest", "direction", "score"]):
            rows = pl.DataFrame(pl.from_arrow(batch)).filter(pl.col("direction") == direction)
            rows = rows.join(image_rows, on="image_digest").join(caption_rows, on="caption_digest")
            found.append(rows.select((pl.col("i") * len(captions) + pl.col("c")).alias("code"), "score"))
        scores = pl.concat(found).group_by("code").agg(pl.col("score").min()).sort("code")
        return KnownScores(scores["code"].to_numpy(), scores["score"].to_numpy())

    def _batches(self, teacher: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        if not deltalake.DeltaTable.is_deltatable(self.uri):
            return
        try:
            table = deltalake.DeltaTable(self.uri)
            dataset = table.to_pyarrow_dataset()
            if set(_SCHEMA.names) - set(dataset.schema.names):
                raise StoreError(f"{self.uri}: columns are {', '.join(dataset.schema.names)}", expected=", ".join(_SCHEMA.names))
            # The table is partitioned by teacher: files of the others are not opened.
            yield from dataset.to_batches(columns=columns, filter=pc.field("teacher") == teacher)
        except (DeltaError, OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise StoreError(
                f"{self.uri}: the score store cannot be read ({reason})",
                do="restore the damaged or missing file; scores that are gone must be bought again",
            ) from error


def _binary(digests: DigestArray) -> pa.Array:
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(DIGEST_BYTES), len(digests), [None, pa.py_buffer(np.ascontiguousarray(digests))]
    )
    return fixed.cast(pa.binary())


def _row_table(digests: DigestArray, key: str, row: str) -> pl.DataFrame:
    frame = pl.DataFrame(pl.from_arrow(pa.table({key: _binary(digests)})))
    return frame.with_columns(pl.Series(row, np.arange(len(digests), dtype=np.int64)))
