"""Exact search whose result is the same bytes whatever the blocks, threads and devices.

FAISS finds a few items more than are wanted; these are scored again in float64, rounded to float32 and put in order
(similarity descending, position ascending). Where FAISS's own rounding could have hidden an item that belongs in the
result, the query is searched again with more items, in the end with all.

Shape suffixes: Q queries, F fetched items, D width, K wanted items, N any list.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cprd_pipeline.mining.faiss_loader import load_faiss

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

MARGIN = 16
"""Items fetched beyond the wanted ones: enough for nearly all queries, and a few percent of the time."""
GROWTH = 4
"""Factor by which a second fetch is larger."""
# FAISS selects no more than this on a GPU.
_GPU_MAX_K = 2048
# Vector elements of one rescoring tile: larger ones leave the processor's cache.
_TILE_ELEMENTS = 1 << 18
# Fetched items that are in memory together.
_FETCHED_ITEMS = 1 << 22
_EMPTY = np.iinfo(np.int64).max
# Unit roundoff of float32, with some room for the roundoff's square.
_ROUNDOFF = 1.01 * 2.0**-24


@dataclass(frozen=True)
class Excluded:
    """Positions that must not be found, per query.

    Args:
        offsets: Query q excludes `positions[offsets[q] : offsets[q + 1]]`; int64 [Q + 1].
        positions: int64 [N], distinct within a query.
    """

    offsets: Positions
    positions: Positions

    def counts(self) -> Positions:
        """Number of excluded positions of each query, int64 [Q]."""
        return np.diff(self.offsets)

    def of(self, queries: Positions) -> tuple[Positions, Positions]:
        """The exclusions of some queries as pairs (index into `queries`, position)."""
        counts = self.counts()[queries]
        owner = np.repeat(np.arange(len(queries)), counts)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return owner, self.positions[self.offsets[queries][owner] + within]


@dataclass(frozen=True)
class TopItems:
    """The best items of each query.

    Args:
        positions: int64 [Q, K]; only the first `counts[q]` of a row mean something.
        similarities: float32 [Q, K], descending; equal ones by position.
        counts: int64 [Q]; less than K where there are not so many items.
    """

    positions: Positions
    similarities: Vectors
    counts: Positions


def count_gpus() -> int:
    """GPUs that FAISS can use; where there are none, its GPU functions give empty indexes or abort the process."""
    return int(load_faiss().get_num_gpus())


class ExactSearch:
    """Inner-product search among a fixed set of vectors.

    Args:
        vectors: float32 [N, D], finite.
        query_block: Queries searched together.
        index_block: Vectors searched together; on GPUs they must fit into their memory.
        gpus: Whether to search on GPUs (all that `count_gpus` counts) or on the CPU.
    """

    def __init__(self, vectors: Vectors, *, query_block: int = 1024, index_block: int = 4_194_304, gpus: bool = False) -> None:
        self._vectors = vectors
        self._query_block = query_block
        self._finder = _Finder(vectors, index_block, gpus and count_gpus() > 0)
        self._longest = float(np.sqrt(max((float(_dot(part, part).max()) for part in _cut(vectors, 4096)), default=0.0)))

    def __len__(self) -> int:
        return len(self._vectors)

    def top(self, queries: Vectors, k: int, excluded: Excluded) -> TopItems:
        """The k items of highest inner product with each query, excluded ones left out.

        Args:
            queries: float32 [Q, D], finite.
            k: Wanted items, at least 1.
            excluded: What each query must not find.
        """
        keys = np.full((len(queries), k), _EMPTY, dtype=np.int64)
        for start in range(0, len(queries), self._query_block):
            rows = np.arange(start, min(start + self._query_block, len(queries)))
            self._fill(keys, queries, rows, k, excluded)
        return _unpack(keys)

    def similarities(self, queries: Vectors, rows: Positions, positions: Positions) -> Vectors:
        """Inner products of pairs, computed as `top` does.

        Args:
            queries: float32 [Q, D].
            rows: Query of each pair, int64 [N].
            positions: Item of each pair, int64 [N].

        Returns:
            float32 [N].
        """
        result = np.empty(len(rows), dtype=np.float32)
        step = max(1, _TILE_ELEMENTS // self._vectors.shape[1])
        for start in range(0, len(rows), step):
            pairs = slice(start, start + step)
            result[pairs] = _dot(self._vectors[positions[pairs]], queries[rows[pairs]])
        return result

    def _fill(self, keys: Positions, queries: Vectors, pending: Positions, k: int, excluded: Excluded) -> None:
        most_excluded = int(excluded.counts()[pending].max())
        # A hub with thousands of positives shall not enlarge its whole block: it fetches again alone.
        fetch = k + MARGIN + min(most_excluded, k)
        while len(pending):
            fetch = min(fetch, len(self))
            unsure = []
            for rows in _cut(pending, max(1, _FETCHED_ITEMS // fetch)):
                found, sure = self._attempt(queries, rows, k, fetch, excluded)
                keys[rows, : found.shape[1]] = found
                unsure.append(rows[~sure])
            pending = np.concatenate(unsure)
            fetch *= GROWTH

    def _attempt(
        self, queries: Vectors, rows: Positions, k: int, fetch: int, excluded: Excluded
    ) -> tuple[Positions, npt.NDArray[np.bool_]]:
        """Sort keys of the best items among `fetch`, and whether no item beyond these could belong to them."""
        block = queries[rows]
        if fetch == len(self):
            positions, worst = np.broadcast_to(np.arange(fetch), (len(rows), fetch)), None
        else:
            positions, worst = self._finder.find(block, fetch)
        keys = _pack(self._rescore(block, positions), positions)
        _blank(keys, positions, *excluded.of(rows))
        keys.sort(axis=1)
        best = keys[:, :k]
        if worst is None:
            return best, np.ones(len(rows), dtype=np.bool_)
        # |float32 sum - true sum| <= roundoff * D * |q| |x| for any order of summation (Higham 2002, section 3.1).
        error = _ROUNDOFF * block.shape[1] * self._longest * np.sqrt(_dot(block, block))
        hidden = (worst + error).astype(np.float32)
        return best, (best[:, -1] != _EMPTY) & (_similarities(best[:, -1]) > hidden)

    def _rescore(self, queries: Vectors, positions: Positions) -> Vectors:
        """Inner products in float64, rounded to float32: [Q, F]."""
        result = np.empty(positions.shape, dtype=np.float32)
        columns = min(positions.shape[1], max(1, _TILE_ELEMENTS // queries.shape[1]))
        lines = max(1, _TILE_ELEMENTS // (columns * queries.shape[1]))
        for top in range(0, positions.shape[0], lines):
            for left in range(0, positions.shape[1], columns):
                tile = slice(top, top + lines), slice(left, left + columns)
                items = np.take(self._vectors, positions[tile], axis=0)
                result[tile] = _dot(items, queries[tile[0], None, :])
        return result


class _Finder:
    """FAISS, on all GPUs or on the CPU."""

    def __init__(self, vectors: Vectors, index_block: int, on_gpus: bool) -> None:
        self._faiss: Any = load_faiss()
        self._vectors = vectors
        self._index_block = index_block
        self._on_gpus = on_gpus
        self._resident: Any = self._to_gpus(vectors) if on_gpus and len(vectors) <= index_block else None

    def find(self, queries: Vectors, fetch: int) -> tuple[Positions, npt.NDArray[np.float64]]:
        """The `fetch` best by float32 inner product, in no order, and the lowest of them: int64 [Q, F], float64 [Q]."""
        found = [self._search(queries, start, fetch) for start in range(0, len(self._vectors), self._index_block)]
        similarities = np.concatenate([part[0] for part in found], axis=1)
        positions = np.concatenate([part[1] for part in found], axis=1)
        if len(found) > 1:
            best = np.argpartition(-similarities, fetch - 1, axis=1)[:, :fetch]
            similarities = np.take_along_axis(similarities, best, axis=1)
            positions = np.take_along_axis(positions, best, axis=1)
        return positions, similarities.min(axis=1).astype(np.float64)

    def _search(self, queries: Vectors, start: int, fetch: int) -> tuple[Vectors, Positions]:
        block = self._vectors[start : start + self._index_block]
        count = min(fetch, len(block))
        if self._on_gpus and count <= _GPU_MAX_K:
            index = self._resident or self._to_gpus(block)
            similarities, positions = index.search(queries, count)
        else:
            # What IndexFlatIP does, without its copy of the vectors.
            similarities, positions = self._faiss.knn(queries, block, count, metric=self._faiss.METRIC_INNER_PRODUCT)
        return similarities, positions + start

    def _to_gpus(self, vectors: Vectors) -> Any:
        index = self._faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        options = self._faiss.GpuMultipleClonerOptions()
        options.shard = True
        options.useFloat16 = False
        return self._faiss.index_cpu_to_all_gpus(index, co=options)


def _cut(array: npt.NDArray[Any], size: int) -> Iterator[npt.NDArray[Any]]:
    return (array[start : start + size] for start in range(0, len(array), size))


def _dot(left: Vectors, right: Vectors) -> npt.NDArray[np.float64]:
    """Inner products over the last axis in float64; einsum's order of summation depends on nothing but D."""
    product: npt.NDArray[np.float64] = np.einsum("...d,...d->...", left.astype(np.float64), right.astype(np.float64))
    return product


def _pack(similarities: Vectors, positions: Positions) -> Positions:
    """One int64 an item that sorts by (similarity descending, position ascending): sorting it is fast, and it is all there is."""
    # Adding zero turns -0.0 into 0.0, which must tie. The bits of negative floats run backwards.
    bits = (similarities + np.float32(0)).view(np.int32)
    ordered = np.where(bits >= 0, bits, bits ^ np.int32(0x7FFFFFFF))
    keys: Positions = (~ordered).astype(np.int64) << 32 | positions
    return keys


def _similarities(keys: Positions) -> Vectors:
    ordered = ~(keys >> 32).astype(np.int32)
    return np.where(ordered >= 0, ordered, ordered ^ np.int32(0x7FFFFFFF)).astype(np.int32).view(np.float32)


def _unpack(keys: Positions) -> TopItems:
    counts = (keys != _EMPTY).sum(axis=1)
    return TopItems(keys & 0xFFFFFFFF, _similarities(keys), counts)


def _blank(keys: Positions, positions: Positions, owners: Positions, unwanted: Positions) -> None:
    """Empty the keys of excluded items, in place."""
    step = max(1, _FETCHED_ITEMS // positions.shape[1])
    for start in range(0, len(owners), step):
        lines = owners[start : start + step]
        line, column = np.nonzero(positions[lines] == unwanted[start : start + step, None])
        keys[lines[line], column] = _EMPTY
