"""The score store: every teacher score that was ever bought, found again by content.

A Delta table: appends are atomic, several writers may append at once, and Polars, Spark and DuckDB read it.
Rows are keyed by content digests, so scores outlive re-imports, new splits, grown corpora and new mining rounds.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store import score_lock
from cprd_pipeline.store.fingerprint import DigestArray
from cprd_pipeline.store.folder import cache_folder
from cprd_pipeline.store.score_disk import one_line
from cprd_pipeline.store.score_pile import KnownScores, RowIndex, ScorePile
from cprd_pipeline.store.score_rows import DIRECTIONS, from_digests, sort_rows
from cprd_pipeline.store.score_table import FAILURES, ScoreTable

__all__ = ["Direction", "KnownScores", "ScoreStore", "default_store"]

_PIECE_ROWS = 1 << 18
"""Rows of a compacted file that are looked up at once."""

Direction = str
"""`i2t` or `t2i` for a teacher whose score depends on the roles, `both` for all others; never null."""


def default_store() -> str:
    """Where the score store lies unless a setting says otherwise."""
    return str(cache_folder() / "scores")


class ScoreStore:
    """Append-only table of teacher scores.

    Args:
        uri: Folder or object-store address of the Delta table; made at the first append.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.table = ScoreTable(uri)

    def append(
        self, teacher: str, direction: Direction, images: DigestArray, captions: DigestArray, scores: npt.NDArray[np.float32]
    ) -> None:
        """Commit scores in one atomic append; waits while a compaction of the same folder runs.

        Of a pair that the batch holds several times the lowest score is stored. The very same batch a second time
        changes nothing: files are named after their content.

        Args:
            teacher: Fingerprint of the teacher.
            direction: See `Direction`.
            images: Image digests, uint8 [N, 16].
            captions: Caption digests, uint8 [N, 16].
            scores: Raw scores, float32 [N], higher is better.

        Raises:
            StoreError: A score is NaN or infinite, or the store cannot be written; nothing of the batch is stored then.
            MachineError: The disk is full; the same.
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
        if not len(scores):
            return
        rows = sort_rows([from_digests(images, captions, direction, scores)])
        try:
            with self.shared(make=True):
                # The table before the file: files without a table mean that the log was lost.
                self.table.create()
                self.table.commit([self.table.disk.write(teacher, rows)])
        except FAILURES as error:
            raise StoreError(
                f"{self.uri}: scores cannot be added to the store ({one_line(error)})",
                do="mend this (disk space, rights, address) and run the same command again; earlier parts are kept",
            ) from error

    def count(self, teacher: str) -> int:
        """Number of rows of one teacher; a key that occurs in two files counts twice."""
        return sum(file.rows for file in self.table.files(teacher))

    def known(self, teacher: str, direction: Direction, images: DigestArray, captions: DigestArray) -> KnownScores:
        """Scores of all pairs of a corpus that the store has.

        Equal digests are one content: each corpus row with the digest gets the score. Should a key occur twice in
        the store (two writers), the lower score counts. Each file's bytes are compared with the digest in its name,
        so that no score which changed on the disk is ever used.

        Args:
            teacher: Fingerprint of the teacher.
            direction: See `Direction`.
            images: Digest of each image row; uint8 [I, 16], distinct.
            captions: Digest of each caption row; uint8 [C, 16], distinct.

        Raises:
            StoreError: A file is damaged or gone, or this is no score store.
        """
        image_rows, caption_rows = RowIndex(images), RowIndex(captions)
        pile = ScorePile(len(images), len(captions))
        with self.shared(make=False):
            for file in self.table.files(teacher):
                for rows in self.table.disk.read(file):
                    image_at, caption_at = image_rows.find(rows.images), caption_rows.find(rows.captions)
                    for start in range(0, len(rows), _PIECE_ROWS):
                        piece = rows.take(slice(start, start + _PIECE_ROWS))
                        image, caption = image_at[piece.image], caption_at[piece.caption]
                        inside = (image >= 0) & (caption >= 0) & (piece.direction == DIRECTIONS.index(direction))
                        pile.add(image[inside] * len(captions) + caption[inside], piece.scores[inside])
        return pile.sorted()

    @contextmanager
    def shared(self, *, make: bool) -> Iterator[None]:
        """Hold the files against `compact`. An object store has no lock; nothing is ever deleted there."""
        if self.table.disk.folder is None:
            yield
            return
        with score_lock.shared(self.table.disk.folder, make=make):
            yield
