"""Exact search: the same result as arithmetic without rounding, whatever the blocks, threads and devices."""

from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.errors import MissingDependencyError
from cprd_pipeline.mining import faiss_loader, gpus
from cprd_pipeline.mining.gpus import choose_gpus
from cprd_pipeline.mining.index_settings import IndexSettings
from cprd_pipeline.mining.search import ExactSearch, Excluded, TopItems
from tests.mining.pretended_gpus import PretendedGpus

WIDTH = 48


def whole_numbers(rng: np.random.Generator, count: int, distinct: int) -> np.ndarray:
    """float32 [count, WIDTH] of integers: exact in float64 in any order of summation, not in float32.

    Many rows are equal, and others differ by one unit in one place, which float32 sums often cannot see.
    """
    bases = rng.integers(-2048, 2049, size=(distinct, WIDTH))
    vectors = bases[rng.integers(0, distinct, size=count)]
    nudged = rng.random(count) < 0.5
    vectors[nudged, rng.integers(0, WIDTH, size=count)[nudged]] += 1
    return vectors.astype(np.float32)


def excluded_lists(lists: list[list[int]]) -> Excluded:
    """Positions that each query must not find."""
    return Excluded(np.cumsum([0, *map(len, lists)]), np.array([p for found in lists for p in found], dtype=np.int64))


def oracle(items: np.ndarray, queries: np.ndarray, k: int, lists: list[list[int]]) -> list[list[tuple[int, np.float32]]]:
    """Integer arithmetic, one Python sort a query."""
    products = queries.astype(np.int64) @ items.astype(np.int64).T
    result = []
    for row, unwanted in zip(products, lists, strict=True):
        banned = set(unwanted)
        ordered = sorted((-np.float32(value), position) for position, value in enumerate(row.tolist()) if position not in banned)
        result.append([(position, -negative) for negative, position in ordered[:k]])
    return result


def as_lists(top: TopItems) -> list[list[tuple[int, np.float32]]]:
    """Pairs of position and similarity, one list a query."""
    return [
        list(zip(positions[:count].tolist(), similarities[:count], strict=True))
        for positions, similarities, count in zip(top.positions, top.similarities, top.counts, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 400),
    distinct=st.integers(1, 40),
    k=st.integers(1, 60),
    query_block=st.sampled_from([1, 3, 1000]),
    index_block=st.sampled_from([7, 64, 100_000]),
)
def test_any_case_equals_integer_arithmetic(
    seed: int, count: int, distinct: int, k: int, query_block: int, index_block: int
) -> None:
    """Ids, order and similarities are those of exact arithmetic, with ties, near ties, exclusions and shortages."""
    rng = np.random.default_rng(seed)
    items, queries = whole_numbers(rng, count, distinct), whole_numbers(rng, 6, 6)
    lists = [rng.permutation(count)[: rng.integers(0, count + 1)].tolist() for _ in queries]
    found = ExactSearch(items, query_block=query_block, index_block=index_block).top(queries, k, excluded_lists(lists))
    assert as_lists(found) == oracle(items, queries, k, lists)


def crowded(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """4000 items of which 3000 are most similar of all, 1000 of these equal, 2000 apart by less than float32 sums show."""
    rng = np.random.default_rng(seed)
    items = whole_numbers(rng, 4000, 500)
    favourite = np.full(WIDTH, 2000, dtype=np.float32)
    crowd = rng.permutation(4000)[:3000]
    items[crowd] = favourite
    items[crowd[:2000]] += rng.integers(-1, 2, size=(2000, WIDTH))
    return items, np.stack([favourite - shift for shift in range(5)]).astype(np.float32)


def test_a_crowd_wider_than_the_margin_is_resolved_exactly() -> None:
    """Thousands of ties and near ties come in exact order; FAISS alone returns other members of the crowd."""
    items, queries = crowded()
    expected = oracle(items, queries, 20, [[]] * 5)
    found = ExactSearch(items).top(queries, 20, excluded_lists([[]] * 5))
    assert as_lists(found) == expected
    plain = faiss.knn(queries, items, 20, metric=faiss.METRIC_INNER_PRODUCT)[1]
    assert sorted(plain[0].tolist()) != sorted(position for position, _ in expected[0])


def test_what_faiss_rounds_away_is_found() -> None:
    """The best item is found where float32 ranks dozens above it: the last fetched similarity has an error too."""
    rng = np.random.default_rng(2)
    favourite = rng.integers(1500, 2049, size=WIDTH)
    items = (favourite + rng.integers(-1, 2, size=(300, WIDTH))).astype(np.float32)
    queries = rng.integers(1500, 2049, size=(400, WIDTH)).astype(np.float32)
    expected = oracle(items, queries, 1, [[]] * 400)
    assert as_lists(ExactSearch(items).top(queries, 1, excluded_lists([[]] * 400))) == expected


def test_zeros_tie_whatever_their_sign() -> None:
    """A product too small for float32 is zero, and minus zero is the same similarity as zero."""
    items = np.array([[-1e-30], [1e-30], [-1e-30]], dtype=np.float32)
    found = ExactSearch(items).top(np.array([[1e-30]], dtype=np.float32), 3, excluded_lists([[]]))
    assert found.positions.tolist() == [[0, 1, 2]]
    assert not np.signbit(found.similarities).any()


def test_blocks_and_threads_do_not_show() -> None:
    """The same bytes for every block size and thread count, on ordinary unit vectors."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((3000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items, queries = vectors[:2500], vectors[2500:]
    none = excluded_lists([[]] * len(queries))
    results = []
    threads = faiss.omp_get_max_threads()
    try:
        for count, query_block, index_block in ((1, 512, 10_000), (2, 7, 10_000), (1, 100, 333), (2, 1, 2499)):
            faiss.omp_set_num_threads(count)
            results.append(ExactSearch(items, query_block=query_block, index_block=index_block).top(queries, 30, none))
    finally:
        faiss.omp_set_num_threads(threads)
    for other in results[1:]:
        assert np.array_equal(other.positions, results[0].positions)
        assert np.array_equal(other.similarities.view(np.int32), results[0].similarities.view(np.int32))
    exact = queries.astype(np.float64) @ items.astype(np.float64).T
    assert np.array_equal(results[0].positions, np.argsort(-exact, axis=1, kind="stable")[:, :30])


def test_a_hub_does_not_lose_candidates() -> None:
    """A query with more positives than k + margin still gets k candidates, as does its neighbour without any."""
    rng = np.random.default_rng(5)
    items, queries = whole_numbers(rng, 600, 600), whole_numbers(rng, 2, 2)
    products = queries.astype(np.int64) @ items.astype(np.int64).T
    lists = [np.argsort(-products[0])[:500].tolist(), []]
    found = ExactSearch(items).top(queries, 8, excluded_lists(lists))
    assert found.counts.tolist() == [8, 8]
    assert as_lists(found) == oracle(items, queries, 8, lists)


def test_pairs_get_the_similarity_that_the_search_gives() -> None:
    """`similarities` and `top` agree in every bit."""
    rng = np.random.default_rng(6)
    vectors = rng.standard_normal((300, 33)).astype(np.float32)
    searcher = ExactSearch(vectors[50:])
    found = searcher.top(vectors[:50], 20, excluded_lists([[]] * 50))
    pairs = searcher.similarities(vectors[:50], np.repeat(np.arange(50), 20), found.positions.ravel())
    assert np.array_equal(pairs.view(np.int32), found.similarities.ravel().view(np.int32))


@pytest.mark.parametrize("k", [5, 2500])
@pytest.mark.parametrize("index_block", [1000, 100_000])
def test_the_gpu_path_keeps_within_what_gpus_can(monkeypatch: pytest.MonkeyPatch, k: int, index_block: int) -> None:
    """With (pretended) GPUs the index is made there, never asked for more than 2048 items, and the result is the same.

    Scratch memory is taken once a GPU, whatever the blocks; what the CPU did in place of the GPUs is told.
    """
    pretended = PretendedGpus(2)
    monkeypatch.setattr(gpus, "load_faiss", lambda: pretended)
    rng = np.random.default_rng(8)
    items, queries = whole_numbers(rng, 3000, 3000), whole_numbers(rng, 3, 3)
    searcher = ExactSearch(items, query_block=1, index_block=index_block, gpus=(0, 1))
    found = searcher.top(queries, k, excluded_lists([[]] * 3))
    assert as_lists(found) == oracle(items, queries, k, [[]] * 3)
    assert any(clone.asked for clone in pretended.clones) == (k == 5 or index_block == 1000)
    assert {(clone.gpus, clone.moved) for clone in pretended.clones} == {((0, 1), 0)}
    assert len(pretended.resources) == 2
    assert (searcher.describe()["left_to_cpu"] > 0) == (k == 2500 and index_block == 100_000)


def unit_vectors(count: int, seed: int) -> np.ndarray:
    """Random float32 vectors of length one, [count, WIDTH]."""
    vectors = np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_float16_storage_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """One (pretended) GPU that rounds everything to float16 ranks otherwise, and the result is the same to the bit."""
    items, queries = unit_vectors(3000, 10), unit_vectors(200, 11)
    queries[::2] += unit_vectors(1, 12)
    items[::3] *= 1e-6  # of which float16 keeps a few bits
    items[1::3] = unit_vectors(1, 12) + 1e-3 * items[1::3]  # among which it sees a few values
    none = excluded_lists([[]] * len(queries))
    expected = ExactSearch(items).top(queries, 20, none)
    pretended = PretendedGpus(2)
    monkeypatch.setattr(gpus, "load_faiss", lambda: pretended)
    searcher = ExactSearch(items, gpus=(1,), float16=True)
    found = searcher.top(queries, 20, none)
    assert np.array_equal(found.positions, expected.positions)
    assert np.array_equal(found.similarities.view(np.int32), expected.similarities.view(np.int32))
    (clone,) = pretended.clones
    assert (clone.gpus, clone.float16) == ((1,), True)
    rounded = clone.search(queries, 20)[1]
    assert not np.array_equal(rounded, expected.positions)
    described = searcher.describe()
    assert described.pop("left_to_cpu") > 0  # crowds that only more than a GPU's 2048 items resolve
    assert described == {
        "kind": "exact",
        "parameters": {"float16": True},
        "device": "gpu",
        "gpus": 1,
        "gpu_ids": [1],
        "bytes": 3000 * WIDTH * 2,
        "build_seconds": None,
    }


def test_float16_allows_for_sums_that_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of D additions may lose a whole last bit of float32, beside what the rounding of both sides to float16 loses."""
    monkeypatch.setattr(gpus, "load_faiss", PretendedGpus)
    width = 1024
    ones = np.full((1, width), width**-0.5, dtype=np.float32)
    bound = ExactSearch(ones, gpus=(0,), float16=True)._error(ones)[0]
    assert bound > width * 2.0**-23 + 2 * 2.0**-11


def test_shards_of_either_side_do_not_show() -> None:
    """2, 4 and 7 shards of the queries or of the items give the ids of one, with thousands of equal vectors about."""
    items, queries = crowded(1)
    queries = np.concatenate([queries, whole_numbers(np.random.default_rng(4), 37, 37)])
    expected = oracle(items, queries, 40, [[]] * len(queries))
    for shards in (2, 4, 7):
        searcher = ExactSearch(items, index_block=-(-len(items) // shards))
        found = []
        for part in np.array_split(queries, shards):
            found += as_lists(searcher.top(part, 40, excluded_lists([[]] * len(part))))
        assert found == expected


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="the trap is a machine without GPUs")
def test_without_gpus_the_cpu_searches() -> None:
    """Asking for GPUs on a machine without any touches none of FAISS's GPU functions, which would return nothing."""
    items, queries = crowded()
    searcher = ExactSearch(items, gpus=choose_gpus("auto", IndexSettings()), float16=True)
    found = searcher.top(queries, 3, excluded_lists([[]] * 5))
    assert (searcher.describe()["device"], searcher.describe()["parameters"]) == ("cpu", {"float16": False})
    assert as_lists(found) == oracle(items, queries, 3, [[]] * 5)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("no module named faiss"), "no module named faiss"),
        (RuntimeError("\nlibcublas is not there\nat line 3"), "libcublas is not there"),
        (ImportError(), "ImportError"),
    ],
)
def test_faiss_that_does_not_load_is_named_with_its_extras(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    """The message says on one line what failed, if only its kind, and which extras bring it."""

    def refuse(name: str) -> None:
        raise error

    monkeypatch.setattr(faiss_loader.importlib, "import_module", refuse)
    with pytest.raises(MissingDependencyError, match=rf"^faiss cannot be imported \({said}\); .*\[cpu\].*\[gpu\]"):
        faiss_loader.load_faiss()


def test_a_hollow_faiss_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The empty namespace that is left when one of two faiss packages was removed is no faiss."""
    monkeypatch.setattr(faiss_loader.importlib, "import_module", lambda name: SimpleNamespace())
    with pytest.raises(MissingDependencyError, match="empty shell"):
        faiss_loader.load_faiss()
