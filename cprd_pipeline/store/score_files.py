"""One data file of the score store: sorted Parquet, small, named after the digest of its bytes."""

import hashlib
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.atomic import CHECKSUM_BYTES
from cprd_pipeline.store.score_rows import COLUMNS, ScoreRows, from_arrow, to_arrow

_KEYS = ["image_digest", "caption_digest", "direction"]

DICTIONARY_BYTES = 1 << 30
"""Past this Parquet would write the 16-byte keys in full for each row; a file's rows are bounded, so its dictionary is."""

_NAMED = re.compile(r"(?:(?P<place>\d+)-of-(?P<places>\d+)-)?(?P<digest>[0-9a-f]{32})\.parquet")


def encode(rows: ScoreRows) -> bytes:
    """A data file's bytes, one row group; equal rows give equal bytes.

    Statistics would only say that digests and scores are spread over everything.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(
        to_arrow(rows),
        sink,
        row_group_size=max(1, len(rows)),
        compression="zstd",
        use_dictionary=_KEYS,
        dictionary_pagesize_limit=DICTIONARY_BYTES,
        column_encoding={"score": "BYTE_STREAM_SPLIT"},
        write_statistics=False,
        store_schema=False,  # it would tell readers to make dictionaries of the keys
    )
    return bytes(sink.getvalue())


def decode(content: pa.Buffer | bytes) -> Iterator[ScoreRows]:
    """The row groups of a data file, ours or another writer's.

    Raises:
        StoreError: Columns or values that no score has.
        pyarrow.ArrowException: The bytes are no whole Parquet file.
        OSError: As above; Parquet's reader uses both.
    """
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=_KEYS)
    missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
    if missing:
        raise StoreError(f"columns are {', '.join(file.schema_arrow.names)}", expected=", ".join(COLUMNS))
    found = file.schema_arrow.field("score").type
    if found != pa.float32():
        raise StoreError(f"scores are {found}", expected="float")
    for group in range(file.num_row_groups):
        yield from_arrow(file.read_row_group(group, columns=COLUMNS))


def content_digest(content: pa.Buffer | bytes) -> str:
    """What a data file is named after: BLAKE2b of its bytes, 32 hex digits."""
    return hashlib.blake2b(content, digest_size=CHECKSUM_BYTES).hexdigest()


def digest_in(name: str) -> str | None:
    """The digest that a file's name promises; None for a file of another writer."""
    found = _NAMED.fullmatch(name)
    return found["digest"] if found else None


def place_in(name: str) -> tuple[int, int] | None:
    """Which file of how many a compaction wrote; None for any other file."""
    found = _NAMED.fullmatch(name)
    return (int(found["place"]), int(found["places"])) if found and found["place"] else None
