"""Approximate search: similarities and order of exact search, the same items for any blocks, lists that are never padded."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.errors import MachineError, SettingsError
from cprd_pipeline.mining import approximate, gpus, index_file
from cprd_pipeline.mining.gpus import choose_gpus
from cprd_pipeline.mining.index_settings import IndexSettings
from cprd_pipeline.mining.indexes import make_search
from cprd_pipeline.mining.ivf import IvfRecipe
from cprd_pipeline.mining.recall import recall
from cprd_pipeline.mining.search import ExactSearch, Excluded, Search, TopItems, Vectors
from cprd_pipeline.settings import load_settings
from tests.mining.pretended_gpus import PretendedGpus

WIDTH = 32
KINDS = ("ivf_flat", "ivf_pq", "hnsw")


def clustered(count: int, seed: int) -> Vectors:
    """Unit vectors around 40 centres that are the same for every seed, [count, WIDTH]."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, WIDTH))
    vectors = centres[rng.integers(0, 40, count)] + 0.6 * rng.standard_normal((count, WIDTH))
    return unit(vectors)


def unit(vectors: np.ndarray) -> Vectors:
    """Rows at length one."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def some_excluded(queries: int, items: int, most: int, seed: int = 0) -> Excluded:
    """Up to `most` items that each query must not find."""
    rng = np.random.default_rng(seed)
    lists = [rng.permutation(items)[: rng.integers(0, most + 1)] for _ in range(queries)]
    return Excluded(np.cumsum([0, *map(len, lists)]), np.concatenate(lists).astype(np.int64))


def searcher(vectors: Vectors, cache: Path, *, identity: str = "these", query_block: int = 1024, **changes: object) -> Search:
    """What `make_search` gives, on the CPU where no GPUs are named."""
    index = IndexSettings.model_validate(changes)
    chosen = choose_gpus("auto", index) if "gpus" in changes else ()
    return make_search(vectors, index, identity=identity, cache=cache, query_block=query_block, index_block=10**6, gpus=chosen)


def rows_of(top: TopItems) -> list[list[tuple[int, np.float32]]]:
    """Pairs of position and similarity, one list a query."""
    return [
        list(zip(positions[:count].tolist(), similarities[:count], strict=True))
        for positions, similarities, count in zip(top.positions, top.similarities, top.counts, strict=True)
    ]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache, so that each index is built once."""
    return tmp_path_factory.mktemp("cache")


ITEMS = clustered(6000, 0)
QUERIES = clustered(300, 1)
EXCLUDED = some_excluded(300, 6000, 20)


@pytest.mark.parametrize("float16", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_most_of_the_exact_result_is_found_with_its_similarities(kind: str, float16: bool, cache: Path) -> None:
    """At least nine tenths of it; each item has the bits that exact search gives it, in its order, none excluded."""
    found = searcher(ITEMS, cache, kind=kind, float16=float16)
    exact = ExactSearch(ITEMS)
    share = recall(found, exact, QUERIES, 20, EXCLUDED)
    assert 0.9 < share <= 1
    top = found.top(QUERIES, 20, EXCLUDED)
    assert top.counts.tolist() == [20] * len(QUERIES)
    rows = np.repeat(np.arange(len(QUERIES)), 20)
    true = exact.similarities(QUERIES, rows, top.positions.ravel())
    assert np.array_equal(true.view(np.int32), top.similarities.ravel().view(np.int32))
    assert np.array_equal(found.similarities(QUERIES, rows, top.positions.ravel()), true)
    for query, row in enumerate(rows_of(top)):
        assert row == sorted(row, key=lambda pair: (-pair[1], pair[0]))
        assert not {position for position, _ in row} & set(EXCLUDED.of(np.array([query]))[1].tolist())


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ({"kind": "ivf_flat", "nprobe": 1}, {"kind": "ivf_flat", "nprobe": 30}),
        ({"kind": "ivf_pq", "nprobe": 30, "refine": 1}, {"kind": "ivf_pq", "nprobe": 30, "refine": 10}),
        ({"kind": "hnsw", "hnsw_m": 4, "ef_search": 1}, {"kind": "hnsw", "hnsw_m": 4, "ef_search": 2000}),
    ],
)
def test_looking_further_finds_more(low: dict[str, object], high: dict[str, object], cache: Path) -> None:
    """Each knob of a search, not of its index, moves the recall; the index is the same file."""
    exact = ExactSearch(ITEMS)
    first, second = searcher(ITEMS, cache, **low), searcher(ITEMS, cache, **high)
    assert second.describe()["reused"]
    assert recall(first, exact, QUERIES, 20, EXCLUDED) + 0.02 < recall(second, exact, QUERIES, 20, EXCLUDED)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_threads_and_company_do_not_show(kind: str, cache: Path) -> None:
    """The same index file gives the same ids and bits, whatever is asked together; thousands of items are equal."""
    items = ITEMS.copy()
    items[1000:4000] = items[:3].repeat(1000, axis=0)
    threads = faiss.omp_get_max_threads()
    results = []
    try:
        for count, query_block in ((1, 1024), (2, 7), (1, 1), (2, 299)):
            faiss.omp_set_num_threads(count)
            found = searcher(items, cache, identity="equal ones", query_block=query_block, kind=kind)
            results.append(found.top(QUERIES, 20, EXCLUDED))
    finally:
        faiss.omp_set_num_threads(threads)
    for query in range(0, len(QUERIES), 50):
        own = EXCLUDED.of(np.array([query]))[1]
        top = found.top(QUERIES[query : query + 1], 20, Excluded(np.array([0, len(own)]), own))
        assert rows_of(top) == [rows_of(results[0])[query]]
    for other in results[1:]:
        assert np.array_equal(other.positions, results[0].positions)
        assert np.array_equal(other.similarities.view(np.int32), results[0].similarities.view(np.int32))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 300), k=st.integers(1, 40), most=st.integers(0, 300))
def test_a_short_list_looks_on_until_there_is_no_more(
    seed: int, count: int, k: int, most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With many cells and one probe, each list is still as long as exact search's; hubs get theirs, nothing is padded."""
    items, queries = clustered(count, seed), clustered(5, seed + 1)
    excluded = some_excluded(5, count, min(most, count), seed)
    nlist = max(1, count // 3)
    folder = tmp_path_factory.mktemp("cache")
    found = searcher(items, folder, kind="ivf_flat", nlist=nlist, nprobe=1).top(queries, k, excluded)
    exact = ExactSearch(items).top(queries, k, excluded)
    assert found.counts.tolist() == exact.counts.tolist()
    for got, wanted in zip(rows_of(found), rows_of(exact), strict=True):
        assert len({position for position, _ in got}) == len(got)
        if len(wanted) < k:  # every item there is
            assert got == wanted


@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_pq"])
def test_gpus_are_used_within_their_limits(kind: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two (pretended) GPUs both search, never for above 2048 items; the CPU takes over there; similarities stay true."""
    expected = searcher(ITEMS, cache, kind=kind, nprobe=64).top(QUERIES, 20, EXCLUDED)
    pretended = PretendedGpus(2)
    monkeypatch.setattr(gpus, "load_faiss", lambda: pretended)
    found = searcher(ITEMS, cache, kind=kind, nprobe=64, float16=kind == "ivf_pq", gpus="all")
    clone = pretended.clones[-1]
    assert (found.describe()["device"], found.describe()["gpu_ids"], clone.gpus) == ("gpu", [0, 1], (0, 1))
    if kind == "ivf_flat":
        assert rows_of(found.top(QUERIES, 20, EXCLUDED)) == rows_of(expected)
    assert found.top(QUERIES[:2], 3000, some_excluded(2, 6000, 0)).counts.tolist() == [3000, 3000]
    assert found.describe()["left_to_cpu"] >= 2
    one = searcher(ITEMS, cache, kind=kind, gpus="one")
    assert (one.describe()["gpus"], pretended.clones[-1].gpus) == (1, (0,))


@pytest.mark.parametrize(("k", "searched"), [(300, [2048]), (2000, [2048]), (2033, [])])
def test_gpus_search_wherever_they_can_give_what_is_needed(
    k: int, searched: list[int], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight items a wanted one are more than a GPU gives from k = 241 on; fewer will do down to the wanted ones and a margin."""
    pretended = PretendedGpus()
    monkeypatch.setattr(gpus, "load_faiss", lambda: pretended)
    found = searcher(ITEMS, cache, kind="ivf_pq", nprobe=153, gpus="all")
    assert found.top(QUERIES[:3], k, some_excluded(3, 6000, 0)).counts.tolist() == [k] * 3
    assert [items for items, _ in pretended.clones[-1].asked] == searched
    assert found.describe()["left_to_cpu"] == (0 if searched else 3)


@pytest.mark.parametrize(("pq_m", "float16"), [(48, False), (64, True), (96, True)])
def test_large_codes_have_look_up_tables_that_fit_a_gpu(
    pq_m: int, float16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four bytes for each of 256 values of 64 bytes are more than a GPU's 48 KB: they are kept in two bytes there."""
    pretended = PretendedGpus(2)
    monkeypatch.setattr(gpus, "load_faiss", lambda: pretended)
    vectors = unit(np.random.default_rng(0).standard_normal((300, 192)))
    found = searcher(vectors, tmp_path, kind="ivf_pq", nlist=1, pq_m=pq_m, gpus="all")
    assert found.top(vectors[:2], 3, some_excluded(2, 300, 0)).positions[:, 0].tolist() == [0, 1]
    (clone,) = pretended.clones
    assert (clone.float16, len(clone.asked)) == (float16, 1)


def test_hnsw_stays_on_the_cpu(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS has no HNSW for GPUs; the output says that the CPU searched."""
    monkeypatch.setattr(gpus, "load_faiss", PretendedGpus)
    found = searcher(ITEMS, cache, kind="hnsw", gpus="all").describe()
    assert (found["device"], found["gpus"]) == ("cpu", 0)


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="the trap is a machine without GPUs")
def test_without_gpus_the_cpu_searches(cache: Path) -> None:
    """Asking for GPUs where there are none moves nothing to them: FAISS would give an empty index."""
    found = searcher(ITEMS, cache, kind="ivf_flat", gpus="all")
    assert found.describe()["device"] == "cpu"
    assert found.top(QUERIES, 20, EXCLUDED).counts.tolist() == [20] * len(QUERIES)


def test_what_is_described(tmp_path: Path) -> None:
    """Kind, every parameter that shaped the result (chosen ones too), where it ran, what it took."""
    first = searcher(ITEMS, tmp_path, kind="ivf_flat").describe()
    (file,) = (tmp_path / "indexes").glob("*.faiss")
    # 4 * sqrt(6000) = 310 cells would hold fewer than 39 vectors each; 153 do not.
    chosen = {"nlist": 153, "train_sample": 6000, "pq_m": None, "float16": False, "seed": 0, "nprobe": 8, "refine": 1}
    assert first == {
        "kind": "ivf_flat",
        "parameters": chosen,
        "device": "cpu",
        "gpus": 0,
        "gpu_ids": [],
        "left_to_cpu": 0,
        "bytes": file.stat().st_size,
        "build_seconds": first["build_seconds"],
        "reused": False,
        "freed_bytes": 0,
    }
    assert first["build_seconds"] > 0
    assert searcher(ITEMS, tmp_path, kind="ivf_flat").describe() == first | {"reused": True}
    hnsw = searcher(ITEMS, tmp_path, kind="hnsw").describe()["parameters"]
    assert hnsw == {"hnsw_m": 32, "ef_construction": 80, "float16": False, "ef_search": 256, "refine": 1}


@pytest.mark.parametrize(
    ("count", "width", "expected"),
    [
        (300, 48, (7, 300, 12)),
        (1_000_000, 64, (4000, 256_000, 16)),
        (100_000_000, 768, (40_000, 2_560_000, 64)),
        (10_000, 3, (256, 10_000, 1)),
        (10_000, 300, (256, 10_000, 20)),
    ],
)
def test_nulls_are_chosen_by_size(count: int, width: int, expected: tuple[int, int, int]) -> None:
    """Cells, training sample and bytes a vector grow with the corpus and the width; GPUs cannot the 60 bytes of a width of 300."""
    recipe = IvfRecipe.choose(IndexSettings(kind="ivf_pq"), count, width)
    assert (recipe.nlist, recipe.train_sample, recipe.pq_m) == expected


def test_an_index_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same vectors and recipe read the file, whatever is asked of it; other vectors or another recipe build another."""
    np.save(tmp_path / "vectors.npy", ITEMS)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    expected = rows_of(searcher(mapped, tmp_path, kind="ivf_flat").top(QUERIES, 20, EXCLUDED))
    searcher(ITEMS, tmp_path, kind="ivf_flat", seed=1)
    searcher(ITEMS, tmp_path, kind="ivf_flat", identity="others")
    assert len(list((tmp_path / "indexes").glob("*.faiss"))) == 3

    def refuse(*_: object) -> None:
        raise AssertionError("an index was built")

    monkeypatch.setattr(index_file, "_build", refuse)
    again = searcher(ITEMS, tmp_path, kind="ivf_flat", nprobe=8, gpus="one")
    assert rows_of(again.top(QUERIES, 20, EXCLUDED)) == expected
    with pytest.raises(AssertionError, match="was built"):
        searcher(ITEMS, tmp_path, kind="ivf_flat", nlist=100)


@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_pq", "hnsw"])
def test_an_index_that_is_not_whole_is_built_again_with_the_same_bytes(kind: str, tmp_path: Path) -> None:
    """A flipped byte, a lost record (killed before it), a cut record: the bytes are those of the first build."""
    items = ITEMS[:1500]
    searcher(items, tmp_path, kind=kind)
    (path,) = (tmp_path / "indexes").glob("*.faiss")
    record = path.with_suffix(".json")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not searcher(items, tmp_path, kind=kind).describe()["reused"]
    assert path.read_bytes() == content
    if kind == "ivf_pq":  # slow to train
        return
    record.unlink()
    assert not searcher(items, tmp_path, kind=kind).describe()["reused"]
    record.write_text('{"checksum"')
    assert not searcher(items, tmp_path, kind=kind).describe()["reused"]
    assert path.read_bytes() == content


def test_one_thread_links_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that link vectors side by side may make another graph each time; afterwards FAISS has its threads back."""
    seen = []

    class Watched(faiss.IndexHNSWFlat):
        """Notes the threads it is filled with."""

        def add(self, vectors: np.ndarray) -> None:
            seen.append(faiss.omp_get_max_threads())
            super().add(vectors)

    threads = faiss.omp_get_max_threads()
    monkeypatch.setattr(faiss, "IndexHNSWFlat", Watched)
    try:
        faiss.omp_set_num_threads(3)
        searcher(ITEMS[:200], tmp_path, kind="hnsw")
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(threads)
    assert seen == [1]


def test_cells_that_float32_cannot_order_do_not_show_the_batch(tmp_path: Path) -> None:
    """FAISS sums large batches in another order, so that its own choice of the one cell to look into differs by batch."""
    rng = np.random.default_rng(0)
    near = unit(unit(rng.standard_normal((1, 128))) + 1e-6 * rng.standard_normal((2000, 128)))
    queries = unit(rng.standard_normal((1100, 128)))
    none = some_excluded(len(queries), len(near), 0)
    one, many = (
        searcher(near, tmp_path, kind="ivf_flat", nlist=50, nprobe=1, query_block=block).top(queries, 3, none)
        for block in (50, 2000)
    )
    assert rows_of(one) == rows_of(many)


def test_a_disk_that_refuses_the_index_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS's own error becomes one line, and no file is left."""

    class FullDisk:
        def __getattr__(self, name: str) -> object:
            return getattr(faiss, name)

        def write_index(self, index: object, path: str) -> None:
            raise RuntimeError("Error in write_index:\nNo space left on device")

    monkeypatch.setattr(index_file, "load_faiss", FullDisk)
    with pytest.raises(MachineError, match=r"index of 400 vectors \(No space left on device\); free some space"):
        searcher(ITEMS[:400], tmp_path, kind="ivf_flat")
    assert list((tmp_path / "indexes").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "ivf_flat", "nlist": 500}, "ivf_flat with 500 cells, and there are 400 items; expected at least 500 items"),
        ({"kind": "ivf_pq", "train_sample": 200}, "index.train_sample is 200; expected at least 256 for ivf_pq"),
        ({"kind": "ivf_pq", "pq_m": 7}, "index.pq_m is 7; expected a divisor of 32, the width of the vectors"),
    ],
)
def test_settings_that_do_not_fit_the_vectors_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    """FAISS would stop with a C++ trace."""
    with pytest.raises(SettingsError, match=message):
        searcher(ITEMS[:400], tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nlist": 8, "nprobe": 9}, "nprobe is 9 where there are 8 cells"),
        ({"nlist": 80, "train_sample": 79}, "train_sample is 79, fewer than the 80 cells"),
        ({"hnsw_m": 1}, "greater than or equal to 2"),
        ({"kind": "lsh"}, "'exact', 'ivf_flat', 'ivf_pq' or 'hnsw'"),
    ],
)
def test_contradictory_settings_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    """Before anything is computed, with the values that contradict each other."""
    (tmp_path / "index.yaml").write_text("{}")
    with pytest.raises(SettingsError, match=message):
        load_settings(IndexSettings, tmp_path / "index.yaml", [f"{name}={value}" for name, value in changes.items()])


def test_recall_counts_what_is_missing() -> None:
    """Worked out by hand: 2 of the 5 items that exact search finds are missing; nothing to find is full recall."""

    class Fixed(ExactSearch):
        """Finds what it is told."""

        def __init__(self, positions: list[list[int]], counts: list[int]) -> None:
            self._top = TopItems(np.array(positions), np.ones((2, 3), dtype=np.float32), np.array(counts))

        def __len__(self) -> int:
            return 10

        def top(self, queries: Vectors, k: int, excluded: Excluded) -> TopItems:
            return self._top

    exact, other = Fixed([[1, 2, 3], [4, 5, 0]], [3, 2]), Fixed([[3, 9, 1], [5, 4, 1]], [3, 1])
    empty = Fixed([[0, 0, 0], [0, 0, 0]], [0, 0])
    assert recall(other, exact, QUERIES[:2], 3, EXCLUDED) == pytest.approx(3 / 5)
    assert recall(empty, empty, QUERIES[:2], 3, EXCLUDED) == 1.0


def test_hubs_and_wide_vectors_keep_to_bounded_memory(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries are cut where many items are fetched; the cut does not show."""
    expected = searcher(ITEMS, cache, kind="ivf_flat").top(QUERIES, 20, EXCLUDED)
    monkeypatch.setattr(approximate, "FETCHED_ITEMS", 100)
    found = searcher(ITEMS, cache, kind="ivf_flat")
    assert rows_of(found.top(QUERIES, 20, EXCLUDED)) == rows_of(expected)
