"""Pairs of contents as numbers: equal pictures or texts under several ids are one."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.corpus.reader import Items, Rows
from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.fingerprint import DigestArray

Direction = Literal["i2t", "t2i"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

Codes = npt.NDArray[np.int64]
"""Pairs: number of the image content * number of different captions + number of the caption content."""


@dataclass(frozen=True)
class Contents:
    """The different contents of one side of a corpus, numbered in corpus order.

    Args:
        items: The side.
        rows: First row of each content, int64 [G].
        of_row: Content of each row, int64 [N].
        id_rank: Rank of each row's id among all ids of the side, int64 [N].
    """

    items: Items
    rows: Rows
    of_row: Rows
    id_rank: Rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> pa.LargeStringArray:
        """Id of each row, [N]."""
        return self.items.arrow_ids

    @property
    def digests(self) -> DigestArray:
        """Of each content, distinct: uint8 [G, 16]."""
        return self.items.digests[self.rows]

    def rows_of(self, ids: pa.Array, where: str) -> Rows:
        """Rows of ids, int64 [N].

        Raises:
            StoreError: An id is not in the corpus; the message names `where` and the id.
        """
        try:
            return self.items.lookup.rows(ids)
        except KeyError as error:
            raise StoreError(
                f"{where}: {error.args[0]!r} is not in the corpus", expected="ids of this corpus", do="run mine again"
            ) from None


class PairSpace:
    """All pairs of a corpus's contents.

    Args:
        images: One side of the corpus.
        captions: The other one.
    """

    def __init__(self, images: Items, captions: Items) -> None:
        self.images = _contents(images)
        self.captions = _contents(captions)

    def sides(self, direction: Direction) -> tuple[Contents, Contents]:
        """Who asks and who is asked for."""
        return (self.images, self.captions) if direction == "i2t" else (self.captions, self.images)

    def codes(self, direction: Direction, query_rows: Rows, item_rows: Rows) -> Codes:
        """Codes of (query, item) pairs given as corpus rows, int64 [N]."""
        image_rows, caption_rows = (query_rows, item_rows) if direction == "i2t" else (item_rows, query_rows)
        return self.images.of_row[image_rows] * len(self.captions) + self.captions.of_row[caption_rows]

    def images_of(self, codes: Codes) -> Rows:
        """Image content of each pair, int64 [N]."""
        return codes // len(self.captions)

    def captions_of(self, codes: Codes) -> Rows:
        """Caption content of each pair, int64 [N]."""
        return codes % len(self.captions)

    def name(self, code: int) -> str:
        """A pair in the user's words."""
        image, caption = divmod(code, len(self.captions))
        image_id, caption_id = (
            side.ids[int(side.rows[at])].as_py() for side, at in ((self.images, image), (self.captions, caption))
        )
        return f"image {image_id!r} with caption {caption_id!r}"


def _contents(items: Items) -> Contents:
    rows, of_row = np.unique(items.first_with_digest, return_inverse=True)
    id_rank = np.empty(len(items), dtype=np.int64)
    # As UTF-8 bytes, which is the order of Python's strings too.
    id_rank[pc.array_sort_indices(items.arrow_ids).to_numpy()] = np.arange(len(items))
    return Contents(items, rows, of_row.astype(np.int64), id_rank)
