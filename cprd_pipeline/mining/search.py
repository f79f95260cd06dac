"""Exact search whose result is the same bytes whatever the blocks, threads and devices.

FAISS finds a few items more than are wanted; these are scored again in float64, rounded to float32 and put in order
(similarity descending, position ascending). Where FAISS's own rounding could have hidden an item that belongs in the
result, the query is searched again with more items, in the end with all.

Shape suffixes: Q queries, F fetched items, D width, K wanted items, N any list.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cprd_pipeline.mining.faiss_loader import load_faiss
from cprd_pipeline.mining.gpus import GPU_MAX_ITEMS, Gpus, place
from cprd_pipeline.mining.rescoring import EMPTY, FETCHED_ITEMS, dot, key_similarities, pair_similarities, rank, unpack
from cprd_pipeline.mining.rescoring import Excluded as Excluded
from cprd_pipeline.mining.rescoring import Positions as Positions
from cprd_pipeline.mining.rescoring import TopItems as TopItems
from cprd_pipeline.mining.rescoring import Vectors as Vectors

MARGIN = 16
"""Items fetched beyond the wanted ones: enough for nearly all queries, and a few percent of the time."""
GROWTH = 4
"""Factor by which a second fetch is larger."""
# Unit roundoffs, with some room for their squares, and half the distance of float16's smallest numbers.
_ROUNDOFF = 1.01 * 2.0**-24
_ROUNDOFF_16 = 1.01 * 2.0**-11
_UNDERFLOW_16 = 1.01 * 2.0**-25


@runtime_checkable
class Search(Protocol):
    """Inner-product search among a fixed set of vectors, exact or not."""

    def __len__(self) -> int:
        """Number of vectors."""

    def top(self, queries: Vectors, k: int, excluded: Excluded) -> TopItems:
        """The k items of highest inner product with each query that the index finds, excluded ones left out.

        Args:
            queries: float32 [Q, D], finite.
            k: Wanted items, at least 1.
            excluded: What each query must not find.
        """

    def similarities(self, queries: Vectors, rows: Positions, positions: Positions) -> Vectors:
        """Inner products of pairs, computed as `top` does.

        Args:
            queries: float32 [Q, D].
            rows: Query of each pair, int64 [N].
            positions: Item of each pair, int64 [N].

        Returns:
            float32 [N].
        """

    def describe(self) -> dict[str, Any]:
        """What searches and where, as JSON: kind, parameters, what `gpus.place` says, bytes, build_seconds.

        `bytes` are those of the index; `build_seconds` is null where there is nothing to build.
        After the searches, since only then it is known what was left to the CPU.
        An approximate search adds what became of its index file.
        """


class ExactSearch:
    """Inner-product search that finds all there is; a `Search`.

    Args:
        vectors: float32 [N, D], finite; on GPUs with float16 each component below 65,504.
        query_block: Queries searched together.
        index_block: Vectors searched together; on GPUs they must fit into their memory.
        gpus: Numbers of the GPUs to search on, as `choose_gpus` gives them; none for the CPU.
        float16: Whether GPUs keep the vectors in float16: half the memory, more fetching, the same result.
    """

    def __init__(
        self,
        vectors: Vectors,
        *,
        query_block: int = 1024,
        index_block: int = 4_194_304,
        gpus: Sequence[int] = (),
        float16: bool = False,
    ) -> None:
        self._vectors = vectors
        self._query_block = query_block
        self._gpus = gpus
        self._float16 = float16 and len(gpus) > 0
        self._finder = _Finder(vectors, index_block, Gpus(gpus) if gpus else None, self._float16)
        self._longest = float(np.sqrt(max((float(dot(part, part).max()) for part in _cut(vectors, 4096)), default=0.0)))

    def __len__(self) -> int:
        return len(self._vectors)

    def top(self, queries: Vectors, k: int, excluded: Excluded) -> TopItems:
        """See `Search.top`; fewer than k items come only where there are no more."""
        keys = np.full((len(queries), k), EMPTY, dtype=np.int64)
        for start in range(0, len(queries), self._query_block):
            rows = np.arange(start, min(start + self._query_block, len(queries)))
            self._fill(keys, queries, rows, k, excluded)
        return unpack(keys)

    def similarities(self, queries: Vectors, rows: Positions, positions: Positions) -> Vectors:
        """See `Search.similarities`."""
        return pair_similarities(self._vectors, queries, rows, positions)

    def describe(self) -> dict[str, Any]:
        """See `Search.describe`; nothing is built, so `bytes` are those of the vectors where they are searched."""
        return {
            "kind": "exact",
            "parameters": {"float16": self._float16},
            **place(self._gpus, self._finder.left_to_cpu),
            "bytes": self._vectors.size * (2 if self._float16 else 4),
            "build_seconds": None,
        }

    def _fill(self, keys: Positions, queries: Vectors, pending: Positions, k: int, excluded: Excluded) -> None:
        most_excluded = int(excluded.counts()[pending].max())
        # A hub with thousands of positives shall not enlarge its whole block: it fetches again alone.
        fetch = k + MARGIN + min(most_excluded, k)
        while len(pending):
            fetch = min(fetch, len(self))
            unsure = []
            for rows in _cut(pending, max(1, FETCHED_ITEMS // fetch)):
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
            everything = np.broadcast_to(np.arange(fetch), (len(rows), fetch))
            return rank(self._vectors, block, everything, *excluded.of(rows), k), np.ones(len(rows), dtype=np.bool_)
        positions, worst = self._finder.find(block, fetch)
        best = rank(self._vectors, block, positions, *excluded.of(rows), k)
        hidden = (worst + self._error(block)).astype(np.float32)
        return best, (best[:, -1] != EMPTY) & (key_similarities(best[:, -1]) > hidden)

    def _error(self, queries: Vectors) -> npt.NDArray[np.float64]:
        """The most by which FAISS's similarity of any item may differ from the true one, [Q]."""
        lengths = np.sqrt(dot(queries, queries))
        # |float32 sum - true sum| <= roundoff * D * |q| |x| for any order of summation (Higham 2002, section 3.1).
        # Tensor cores, which multiply float16, may cut a sum's last bits off where others round them: twice the error.
        roundoff = 2 * _ROUNDOFF if self._float16 else _ROUNDOFF
        error: npt.NDArray[np.float64] = roundoff * queries.shape[1] * self._longest * lengths
        if self._float16:
            # Both sides are rounded, relatively, or absolutely where a component is tiny.
            error += 2 * _ROUNDOFF_16 * self._longest * lengths
            error += _UNDERFLOW_16 * np.sqrt(queries.shape[1]) * (self._longest + lengths)
        return error


class _Finder:
    """FAISS, on GPUs or on the CPU; `left_to_cpu` counts the searches of a query that were too much for a GPU."""

    def __init__(self, vectors: Vectors, index_block: int, gpus: Gpus | None, float16: bool) -> None:
        self._faiss: Any = load_faiss()
        self._vectors = vectors
        self._index_block = index_block
        self._gpus = gpus
        self._float16 = float16
        self._resident: Any = gpus.hold_flat(vectors, float16=float16) if gpus and len(vectors) <= index_block else None
        self.left_to_cpu = 0

    def find(self, queries: Vectors, fetch: int) -> tuple[Positions, npt.NDArray[np.float64]]:
        """The `fetch` best by FAISS's inner product, in no order, and the lowest of them: int64 [Q, F], float64 [Q]."""
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
        if self._gpus is not None and count <= GPU_MAX_ITEMS:
            index = self._gpus.hold_flat(block, float16=self._float16) if self._resident is None else self._resident
            similarities, positions = self._gpus.search(index, queries, count)
        else:
            self.left_to_cpu += len(queries) if self._gpus is not None else 0
            # What IndexFlatIP does, without its copy of the vectors.
            similarities, positions = self._faiss.knn(queries, block, count, metric=self._faiss.METRIC_INNER_PRODUCT)
        return similarities, positions + start


def _cut(array: npt.NDArray[Any], size: int) -> Iterator[npt.NDArray[Any]]:
    return (array[start : start + size] for start in range(0, len(array), size))
