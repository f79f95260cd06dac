"""From ids to rows, by a table that is made once: Arrow's own look-up hashes all ids of a side again for every part."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cprd_pipeline.corpus.id_hashes import Hashes, id_hashes

Rows = npt.NDArray[np.int64]

# Ids of a side up to which Arrow's look-up is the faster one where many are asked for.
_FEW = 1 << 17
# Ids that are hashed or found together, so that what is known of them stays in a processor's cache.
_BLOCK = 1 << 15


class _Table(NamedTuple):
    """Hashes of the ids, sorted; 10 to 12 bytes an id.

    Args:
        keys: The upper bits of each hash, and in the bits below the row; after them one that is above all. uint64 [N + 1].
        prefix: Which bits are the hash's.
        starts: First key of each bucket, of which there is one for one or two ids; unsigned [B].
        shift: What leaves of a hash the number of its bucket.
    """

    keys: Hashes
    prefix: np.uint64
    starts: npt.NDArray[np.unsignedinteger]
    shift: np.uint64


class IdLookup:
    """Finds the rows of ids.

    Args:
        ids: Of each row, strings with offsets of 32 or 64 bits; where one occurs twice, its first row is found.
    """

    def __init__(self, ids: pa.Array) -> None:
        self._ids: pa.LargeStringArray = ids.cast(pa.large_string())

    def rows(self, ids: pa.Array | pa.ChunkedArray) -> Rows:
        """Row of each id, int64 [M].

        Raises:
            KeyError: An id has none; the error holds the first such id.
        """
        if len(self._ids) <= min(_FEW, len(ids)):
            rows = pc.fill_null(pc.index_in(ids, value_set=self._ids), -1).to_numpy().astype(np.int64)
        else:
            column = ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([ids])
            rows = self._by_hash(column.cast(pa.large_string()))
        strangers = np.flatnonzero(rows < 0)
        if len(strangers):
            raise KeyError(ids[int(strangers[0])].as_py())
        return np.asarray(rows)

    def _by_hash(self, ids: pa.ChunkedArray) -> Rows:
        rows, done = np.empty(len(ids), dtype=np.int64), 0
        for chunk in ids.chunks:
            for start in range(0, len(chunk), _BLOCK):
                found = self._block(chunk.slice(start, _BLOCK))
                rows[done : done + len(found)] = found
                done += len(found)
        return rows

    def _block(self, ids: pa.LargeStringArray) -> Rows:
        """As `rows`, with -1 where there is none."""
        keys, prefix, starts, shift = self._table
        wanted = id_hashes(ids) & prefix
        places = starts[wanted >> shift].astype(np.int64)
        before = np.flatnonzero(keys[places] < wanted)
        while len(before):
            places[before] += 1
            before = before[keys[places[before]] < wanted[before]]
        rows = np.full(len(ids), -1, dtype=np.int64)
        asking = np.arange(len(ids))
        while True:
            # Equal hashes are no proof: the ids are compared, of all keys with that hash one after the other.
            asking = asking[(places[asking] < len(self._ids)) & (keys[places[asking]] & prefix == wanted[asking])]
            if not len(asking):
                return rows
            found = (keys[places[asking]] & ~prefix).astype(np.int64)
            same = self._are(found, ids if len(asking) == len(ids) else ids.take(pa.array(asking)))
            rows[asking[same]] = found[same]
            asking = asking[~same]
            places[asking] += 1

    def _are(self, rows: Rows, ids: pa.LargeStringArray) -> npt.NDArray[np.bool_]:
        """Whether each row has this id; a null is none."""
        same = pc.fill_null(pc.equal(self._ids.take(pa.array(rows)), ids), False)
        return np.asarray(same.to_numpy(zero_copy_only=False))

    @cached_property
    def _table(self) -> _Table:
        count = len(self._ids)
        bits = count.bit_length()
        prefix = ~np.uint64((1 << bits) - 1)
        keys = np.full(count + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
        for start in range(0, count, _BLOCK):
            hashes = id_hashes(self._ids.slice(start, _BLOCK))
            keys[start : start + len(hashes)] = (hashes & prefix) | np.arange(start, start + len(hashes), dtype=np.uint64)
        keys[:count].sort()
        bucket_bits = max(bits - 1, 1)
        shift = np.uint64(64 - bucket_bits)
        first_of_bucket = np.arange(1 << bucket_bits, dtype=np.uint64) << shift
        return _Table(keys, prefix, np.searchsorted(keys, first_of_bucket).astype(np.min_scalar_type(count)), shift)
