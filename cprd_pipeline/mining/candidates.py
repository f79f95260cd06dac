"""One direction of mining: from queries to the rows of the candidates table.

Shape suffixes: N pairs, Q queries, C contents that ask, D width, R = len(FILTERS).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64, UInt64

from cprd_pipeline.mining.contents import Contents
from cprd_pipeline.mining.draws import query_keys, uniform
from cprd_pipeline.mining.earlier import EarlierLists
from cprd_pipeline.mining.filters import Filters
from cprd_pipeline.mining.lists import Lists, flatten, judge
from cprd_pipeline.mining.merging import Merged, merge
from cprd_pipeline.mining.samplers import choose
from cprd_pipeline.mining.search import Excluded, Search, TopItems
from cprd_pipeline.mining.settings import SamplerSettings
from cprd_pipeline.mining.sides import offsets_of
from cprd_pipeline.mining.walk import Askers, Walk
from cprd_pipeline.store.schemas import CANDIDATES

Direction = Literal["i2t", "t2i"]

# Items of pools that are in memory together.
_POOLED_ITEMS = 1 << 22


@dataclass(frozen=True)
class Sampling:
    """How candidates are drawn.

    Args:
        settings: The sampler.
        pool: Items that it draws from.
        keys: Of the items, for random numbers; see `draws`.
        rankings: Of an earlier round, for the sampler `teacher`.
    """

    settings: SamplerSettings
    pool: int
    keys: UInt64[np.ndarray, " M"]
    rankings: EarlierLists | None = None


@dataclass(frozen=True)
class _Draw:
    """What one round found for some queries: `plain` are the k most similar items before any filter."""

    plain: TopItems
    candidates: Lists
    dropped: Int64[np.ndarray, "Q R"]
    passed: Int64[np.ndarray, " Q"]


@dataclass(frozen=True)
class Miner:
    """Finds candidates of one direction.

    Args:
        direction: Who asks: images (`i2t`) or captions (`t2i`).
        queries: The side that asks.
        query_vectors: One a content of `queries`.
        items: The side that is asked for.
        search: Search among the contents of `items`, in their order.
        positives: Contents of `items` that are positives, per content of `queries`.
        k: Candidates a query.
        filters: What keeps items out.
        sampling: How candidates are drawn from what is left.
        earlier: Candidates of earlier rounds that are added.
    """

    direction: Direction
    queries: Contents
    query_vectors: Float32[np.ndarray, "C D"]
    items: Contents
    search: Search
    positives: Excluded
    k: int
    filters: Filters
    sampling: Sampling
    earlier: tuple[EarlierLists, ...] = ()

    def part(self, start: int, stop: int) -> pa.Table:
        """Rows of the candidates table for the queries from `start` up to `stop`, in corpus order."""
        stop = min(stop, len(self.queries.ids))
        block = max(1, _POOLED_ITEMS // self.sampling.pool)
        return pa.concat_tables([self._block(at, min(at + block, stop)) for at in range(start, stop, block)]).combine_chunks()

    def _block(self, start: int, stop: int) -> pa.Table:
        rows = np.arange(start, stop)
        asking = self.queries.of_row[rows]
        vectors = self.query_vectors[asking]
        owners, contents = self.positives.of(asking)
        similarities = self.search.similarities(vectors, owners, contents)
        lowest = np.full(len(rows), np.inf)
        np.minimum.at(lowest, owners, similarities)
        own_positives = Excluded(offsets_of(owners, len(rows)), contents)
        askers = Askers(asking, vectors, own_positives, lowest)
        draw = self._draw(askers, start, stop)
        merged = self._merge(draw.candidates, askers, start, stop)
        copies = self.items.copies[merged.lists.items] - 1
        counters = [
            self._positives_ahead(owners, contents, similarities, draw.plain),
            np.bincount(merged.lists.owners, weights=copies, minlength=len(rows)).astype(np.int64),
            *draw.dropped.T,
            draw.passed,
            merged.added,
            merged.dropped,
        ]
        return pa.table(
            [
                self.queries.ids.slice(start, stop - start),
                pa.array([self.direction] * len(rows), pa.string()),
                *self._candidate_lists(merged.lists, len(rows)),
                *self._positive_lists(owners, contents, similarities, len(rows)),
                *(pa.array(counter, pa.int32()) for counter in counters),
            ],
            schema=CANDIDATES,
        )

    def _draw(self, askers: Askers, start: int, stop: int) -> _Draw:
        sampling, scores = self.sampling, None
        if sampling.rankings is not None:
            plain = self.search.top(askers.vectors, self.k, askers.positives)
            known = sampling.rankings.of(start, stop)
            judged = judge(known.owners, known.items, askers, self.search, self.filters)
            pool, dropped = judged.lists, judged.dropped
            scores = None if known.scores is None else known.scores[judged.origin]
        else:
            found = Walk(self.search, self.filters, self.k, sampling.pool).pool(askers)
            plain, pool, dropped = found.plain, flatten(found.items), found.dropped
        passed = np.bincount(pool.owners, minlength=stop - start)
        if sampling.settings.kind == "top":
            return _Draw(plain, pool, dropped, passed)
        ids = self.queries.ids.slice(start, stop - start).to_pylist()
        draws = uniform(query_keys(sampling.settings.seed, ids)[pool.owners], sampling.keys[pool.items])
        chosen = choose(sampling.settings, self.k, pool.owners, pool.similarities, draws, scores)
        return _Draw(plain, pool.take(chosen), dropped, passed)

    def _merge(self, fresh: Lists, askers: Askers, start: int, stop: int) -> Merged:
        if not self.earlier:
            none = np.zeros(len(askers.contents), dtype=np.int64)
            return Merged(fresh, none, none)
        return merge(fresh, [lists.of(start, stop) for lists in self.earlier], askers, self.search, self.filters)

    def _candidate_lists(self, lists: Lists, count: int) -> tuple[pa.ListArray, pa.ListArray]:
        offsets = offsets_of(lists.owners, count)
        ids = self.items.ids.take(pa.array(self.items.first[lists.items]))
        return _lists(offsets, ids), _lists(offsets, pa.array(lists.similarities))

    def _positive_lists(
        self,
        owners: Int64[np.ndarray, " N"],
        contents: Int64[np.ndarray, " N"],
        similarities: Float32[np.ndarray, " N"],
        count: int,
    ) -> tuple[pa.ListArray, pa.ListArray]:
        """Every id of every positive content, by id."""
        copies = self.items.copies[contents]
        pair = np.repeat(np.arange(len(owners)), copies)
        within = np.arange(len(pair)) - np.repeat(np.cumsum(copies) - copies, copies)
        rows = self.items.members[self.items.offsets[contents][pair] + within]
        order = np.lexsort((self.items.id_rank[rows], owners[pair]))
        offsets = offsets_of(owners[pair], count)
        ids = self.items.ids.take(pa.array(rows[order]))
        return _lists(offsets, ids), _lists(offsets, pa.array(similarities[pair[order]]))

    def _positives_ahead(
        self,
        owners: Int64[np.ndarray, " N"],
        contents: Int64[np.ndarray, " N"],
        similarities: Float32[np.ndarray, " N"],
        plain: TopItems,
    ) -> Int64[np.ndarray, " Q"]:
        """How many positive ids would stand before the end of each query's k most similar items if they were no positives."""
        last = np.maximum(plain.counts - 1, 0)[:, None]
        last_similarity = np.take_along_axis(plain.similarities, last, axis=1)[owners, 0]
        last_position = np.take_along_axis(plain.positions, last, axis=1)[owners, 0]
        tied_before = (similarities == last_similarity) & (contents < last_position)
        ahead = (plain.counts < self.k)[owners] | (similarities > last_similarity) | tied_before
        copies = self.items.copies[contents[ahead]]
        return np.bincount(owners[ahead], weights=copies, minlength=len(plain.counts)).astype(np.int64)


def _lists(offsets: Int64[np.ndarray, " N"], values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
