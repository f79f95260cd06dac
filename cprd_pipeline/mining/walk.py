"""Down the list of the most similar items, past those that a filter objects to, until enough of them have passed.

Shape suffixes: Q queries, F fetched items, P pool, R = len(FILTERS), N pairs.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int64

from cprd_pipeline.mining.filters import PASSED, Filters
from cprd_pipeline.mining.search import Excluded, Search, TopItems
from cprd_pipeline.store.schemas import CANDIDATE_FILTERS as FILTERS

GROWTH = 4
"""Factor by which the next fetch is larger."""
# Fetched items that are in memory together.
_FETCHED_ITEMS = 1 << 22
_RANK, _MIN_SIMILARITY, _SAME_TEXT = (FILTERS.index(name) for name in ("rank", "min_similarity", "same_text"))


@dataclass(frozen=True)
class Askers:
    """Queries of a part.

    Args:
        contents: Content of each, int64 [Q].
        vectors: float32 [Q, D].
        positives: What each must not find.
        lowest: Lowest similarity of each one's positives; infinite where there are none.
    """

    contents: Int64[np.ndarray, " Q"]
    vectors: Float32[np.ndarray, "Q D"]
    positives: Excluded
    lowest: Float64[np.ndarray, " Q"]

    def take(self, rows: Int64[np.ndarray, " N"]) -> "Askers":
        """Some of the queries."""
        _, positions = self.positives.of(rows)
        offsets = np.concatenate([[0], np.cumsum(self.positives.counts()[rows])])
        return Askers(self.contents[rows], self.vectors[rows], Excluded(offsets, positions), self.lowest[rows])


@dataclass(frozen=True)
class Pool:
    """What passed the filters, best first.

    Args:
        items: At most `size` of each query.
        plain: The k most similar items of each query, whatever the filters say.
        dropped: Items that each filter kept out; int64 [Q, R]. Items are counted down to the last of the pool. Where
            `last_rank` or `min_similarity` ends the walk, the places of the k-list that stay empty for it are counted.
    """

    items: TopItems
    plain: TopItems
    dropped: Int64[np.ndarray, "Q R"]


class Walk:
    """Finds pools.

    Args:
        search: Among the items.
        filters: Of the direction.
        k: Candidates wanted.
        size: Items wanted in a pool, at least k.
    """

    def __init__(self, search: Search, filters: Filters, k: int, size: int) -> None:
        self._search = search
        self._filters = filters
        self._k = k
        self._size = size

    def pool(self, askers: Askers) -> Pool:
        """The pools of some queries."""
        count = len(askers.contents)
        if self._filters.idle:
            top = self._search.top(askers.vectors, self._size, askers.positives)
            return Pool(top, _first(top, self._k), np.zeros((count, len(FILTERS)), dtype=np.int64))
        pool = _empty(count, self._k, self._size)
        pending = np.arange(count)
        fetch = self._first_fetch()
        while len(pending):
            fetch = min(fetch, len(self._search))
            block = max(1, _FETCHED_ITEMS // fetch)
            blocks = [pending[start : start + block] for start in range(0, len(pending), block)]
            pending = np.concatenate([self._attempt(askers, rows, fetch, pool) for rows in blocks])
            fetch *= GROWTH
        return pool

    def _first_fetch(self) -> int:
        # A few texts may be the same; but of strict bounds nearly every query loses some.
        slack = self._size if self._filters.costly else self._size // 8
        return max(self._k, self._filters.settings.first_rank - 1 + self._size + slack)

    def _attempt(self, askers: Askers, rows: Int64[np.ndarray, " N"], fetch: int, pool: Pool) -> Int64[np.ndarray, " M"]:
        """Fill in the pools of the rows for which `fetch` items are enough; the others are returned."""
        asking = askers.take(rows)
        top = self._search.top(asking.vectors, fetch, asking.positives)
        verdicts, end = self._judge(asking, top)
        columns = np.arange(fetch)
        passed = (verdicts == PASSED) & (columns < end[:, None])
        places = np.cumsum(passed, axis=1)
        full = places[:, -1] >= self._size
        enough = full | (end < top.counts) | (top.counts < fetch) | (fetch == len(self._search))
        taken = passed & (places <= self._size)
        # The walk stops at the pool's last item, or where nothing further can pass.
        stop = np.where(full, taken.shape[1] - np.argmax(taken[:, ::-1], axis=1), end)
        looked_at = columns < stop[:, None]
        owners, out = np.nonzero((verdicts != PASSED) & looked_at)
        codes = owners * len(FILTERS) + verdicts[owners, out]
        dropped = np.bincount(codes, minlength=len(rows) * len(FILTERS)).reshape(len(rows), len(FILTERS))
        self._count_the_end(dropped, asking, top, verdicts, stop, taken.sum(axis=1))
        done = np.flatnonzero(enough)
        _write(pool.items, rows[done], top, taken, done)
        plain = columns[: self._k] < np.minimum(top.counts, self._k)[:, None]
        _write(pool.plain, rows[done], top, np.pad(plain, ((0, 0), (0, fetch - plain.shape[1]))), done)
        pool.dropped[rows[done]] = dropped[done]
        return rows[~enough]

    def _judge(self, asking: Askers, top: TopItems) -> tuple[Int8[np.ndarray, "Q F"], Int64[np.ndarray, " Q"]]:
        """The filter that objects to each item, and the column at which each walk ends at the latest."""
        settings = self._filters.settings
        ranks = np.arange(1, top.positions.shape[1] + 1)
        verdicts = np.full(top.positions.shape, PASSED, dtype=np.int8)
        out_of_range = ranks < settings.first_rank
        if settings.last_rank is not None:
            out_of_range |= ranks > settings.last_rank
        verdicts[:, out_of_range] = _RANK
        owners, columns = np.nonzero((ranks <= top.counts[:, None]) & ~out_of_range)
        items, similarities = top.positions[owners, columns], top.similarities[owners, columns]
        found = self._filters.verdicts(asking.contents[owners], items, similarities, asking.lowest[owners])
        left = np.flatnonzero(found == PASSED)
        found[left[self._filters.copies(owners[left], items[left])]] = _SAME_TEXT
        verdicts[owners, columns] = found
        ends = _ends(verdicts, settings.last_rank)
        return verdicts, np.where(ends.any(axis=1), np.minimum(np.argmax(ends, axis=1), top.counts), top.counts)

    def _count_the_end(
        self,
        dropped: Int64[np.ndarray, "Q R"],
        asking: Askers,
        top: TopItems,
        verdicts: Int8[np.ndarray, "Q F"],
        stop: Int64[np.ndarray, " Q"],
        passed: Int64[np.ndarray, " Q"],
    ) -> None:
        """Charge the filter that ended a walk, in place."""
        ended = np.flatnonzero((stop < top.counts) & (passed < self._size))
        behind = len(self._search) - asking.positives.counts()[ended] - stop[ended]
        dropped[ended, verdicts[ended, stop[ended]]] += np.minimum(np.maximum(self._k - passed[ended], 0), behind)


def _ends(verdicts: Int8[np.ndarray, "Q F"], last_rank: int | None) -> Bool[np.ndarray, "Q F"]:
    """Where nothing further down can pass: similarities only fall, and ranks only rise."""
    ends = np.asarray(verdicts == _MIN_SIMILARITY)
    if last_rank is not None:
        ends[:, last_rank:] = True
    return ends


def _first(top: TopItems, k: int) -> TopItems:
    return TopItems(top.positions[:, :k], top.similarities[:, :k], np.minimum(top.counts, k))


def _empty(count: int, k: int, size: int) -> Pool:
    def items(width: int) -> TopItems:
        shape = (count, width)
        return TopItems(np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32), np.zeros(count, dtype=np.int64))

    return Pool(items(size), items(k), np.zeros((count, len(FILTERS)), dtype=np.int64))


def _write(
    target: TopItems,
    rows: Int64[np.ndarray, " N"],
    source: TopItems,
    chosen: Bool[np.ndarray, "Q F"],
    lines: Int64[np.ndarray, " N"],
) -> None:
    """Copy the chosen items of some lines to some rows, without gaps."""
    owners, columns = np.nonzero(chosen[lines])
    counts = chosen[lines].sum(axis=1)
    places = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    target.positions[rows[owners], places] = source.positions[lines[owners], columns]
    target.similarities[rows[owners], places] = source.similarities[lines[owners], columns]
    target.counts[rows] = counts
