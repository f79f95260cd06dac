"""The stage `mine`, from a corpus folder to a candidates folder."""

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import CorpusError, MissingDependencyError, ModelError, SettingsError
from cprd_pipeline.mining import candidates, gpus, miners, parts, search
from cprd_pipeline.mining import run as stage
from cprd_pipeline.mining.parts import cut_parts
from cprd_pipeline.mining.search import Search
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.models.embeddings import embed_corpus
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.schemas import CANDIDATES, check_schema
from tests.mining.pretended_gpus import PretendedGpus
from tests.tiny_encoders import random_captions, random_image, simple_corpus, write_corpus

ROOT = Path(__file__).parents[2]


def mine_settings(tmp_path: Path, corpus: Path, encoder: Path, **changes: Any) -> MineSettings:
    """Small parts and blocks, everything below the test's own folder."""
    values = {
        "corpus": corpus,
        "encoder": str(encoder),
        "output": tmp_path / "candidates",
        "report": tmp_path / "mine.json",
        "k": 6,
        "part_queries": 10,
        "query_block": 4,
        "device": "cpu",
        "dtype": "float32",
    }
    return MineSettings(**{**values, **changes})


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Every row, image queries first."""
    content = InputFolder(folder, "candidates")
    tables = [check_schema(content.tables(f"{direction}-"), CANDIDATES, str(folder)) for direction in ("i2t", "t2i")]
    return pa.concat_tables(tables).to_pylist()


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def tangled_corpus(folder: Path) -> Path:
    """Ids in no order, equal pictures and equal texts under several ids, a hub, an image alone, and another split."""
    texts = random_captions(30)
    pictures = [random_image(seed) for seed in range(20)]
    order = np.random.default_rng(1).permutation(24)
    # Pictures 20 to 23 repeat 0 to 3; captions 30 to 35 repeat 0 to 5.
    images = [(f"i{order[row]:02d}", pictures[row % 20], "train") for row in range(24)]
    captions = [(f"c{(row * 17) % 36:02d}", texts[row % 30], "train") for row in range(36)]
    owner = {row: (row % 30) % 19 for row in range(36)}
    owner |= dict.fromkeys(range(10, 19), 7)  # picture 7 is a hub, 11 to 19 have no caption
    owner |= {row + 30: owner[row] for row in range(6)}
    positives = [
        (images[image][0], captions[row][0]) for row, picture in owner.items() for image in range(24) if image % 20 == picture
    ]
    images += [("other-i", random_image(99), "test"), ("other-j", random_image(98), "test")]
    captions += [("other-c", "a b c", "test"), ("other-d", "d e f", "test")]
    return write_corpus(folder, images, captions, [*positives, ("other-i", "other-c"), ("other-j", "other-d")])


def expected_rows(corpus: Corpus, encoder: Path, k: int) -> list[dict[str, Any]]:
    """The same table by the words of the contract: one query, one sorted list and one loop at a time."""
    split = corpus.split("train")
    vectors = embed_corpus(
        str(encoder), corpus, split.images, split.captions, device=torch.device("cpu"), dtype=torch.float32, batch_size=7, workers=0
    )
    pairs = {(int(image), int(caption)) for image, caption in split.positives}
    sides = {
        "i2t": (corpus.images, split.images, vectors.images, corpus.captions, split.captions, vectors.captions),
        "t2i": (corpus.captions, split.captions, vectors.captions, corpus.images, split.images, vectors.images),
    }
    rows = []
    for direction, (queries, query_rows, query_vectors, items, item_rows, item_vectors) in sides.items():
        for query, query_vector in zip(query_rows, query_vectors, strict=True):
            scored = []
            for item, vector in zip(item_rows, item_vectors, strict=True):
                similarity = np.float32(np.dot(query_vector.astype(np.float64), vector.astype(np.float64)))
                positive = ((query, item) if direction == "i2t" else (item, query)) in pairs
                scored.append((-similarity, items.ids[item], items.digests[item].tobytes(), positive))
            scored.sort()
            row = {field.name: 0 for field in CANDIDATES if field.type == pa.int32()}
            row |= {"query_id": queries.ids[query], "direction": direction}
            taken: dict[bytes, tuple[str, float]] = {}
            for negative, item_id, digest, positive in scored:
                if positive:
                    row["dropped_positive"] += len(taken) < k
                elif digest in taken:
                    row["dropped_duplicate"] += 1
                elif len(taken) < k:
                    taken[digest] = (item_id, float(-negative))
            row["candidate_ids"] = [item_id for item_id, _ in taken.values()]
            row["passed"] = len(taken)
            row["similarities"] = [similarity for _, similarity in taken.values()]
            row["positive_ids"] = sorted(item_id for _, item_id, _, positive in scored if positive)
            by_id = {item_id: float(-negative) for negative, item_id, _, _ in scored}
            row["positive_similarities"] = [by_id[item_id] for item_id in row["positive_ids"]]
            rows.append(row)
    return rows


@pytest.mark.parametrize("k", [1, 6, 20])
def test_every_row_is_what_the_contract_says(tmp_path: Path, clip_folder: Path, k: int) -> None:
    """Ids, similarities, positives, counters and shortages equal a plain loop; queries come in corpus order."""
    corpus = tangled_corpus(tmp_path / "corpus")
    stage.run(mine_settings(tmp_path, corpus, clip_folder, k=k))
    assert rows_of(tmp_path / "candidates") == expected_rows(Corpus(corpus), clip_folder, k)


def test_blocks_and_batch_order_do_not_shape_the_output(tmp_path: Path, clip_folder: Path) -> None:
    """Another search block gives the same bytes; parts are cut by their own setting alone."""
    corpus = tangled_corpus(tmp_path / "corpus")
    stage.run(mine_settings(tmp_path, corpus, clip_folder))
    other = mine_settings(tmp_path, corpus, clip_folder, output=tmp_path / "other", query_block=1000, index_block=5)
    stage.run(other)
    assert bytes_of(tmp_path / "candidates") == bytes_of(tmp_path / "other")
    names = [name for name in bytes_of(tmp_path / "other") if name != "_manifest.json"]
    assert names == [f"i2t-0000{n}.parquet" for n in range(3)] + [f"t2i-0000{n}.parquet" for n in range(4)]


def test_the_manifest_names_what_shaped_the_bytes(tmp_path: Path, clip_folder: Path) -> None:
    """Corpus and encoder by digest, split, k, round and part size; no path, device or block size."""
    corpus = simple_corpus(tmp_path / "corpus", 6)
    report = stage.run(mine_settings(tmp_path, corpus, clip_folder, round="second"))
    manifest = InputFolder(tmp_path / "candidates", "candidates").manifest
    assert manifest.settings == {
        "split": "train",
        "k": 6,
        "round": "second",
        "part_queries": 10,
        "index": {"kind": "exact"},
        "filters": {"same_text": True},
        "sampler": {"kind": "top"},
    }
    assert manifest.inputs == {"corpus": Corpus(corpus).digest, "encoder": report.results["encoder"]}


def test_a_second_run_does_nothing(tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything there, no image is embedded and nothing is searched; a lost report is written again."""
    settings = mine_settings(tmp_path, simple_corpus(tmp_path / "corpus", 6), clip_folder)
    first = stage.run(settings)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this run had nothing to do")

    monkeypatch.setattr(stage, "embed_corpus", refuse)
    monkeypatch.setattr(miners, "make_search", refuse)
    assert stage.run(settings).up_to_date
    settings.report.unlink()
    again = stage.run(settings)
    assert again.results == {**first.results, "indexes": {}}
    assert json.loads(settings.report.read_text())["results"] == again.results


def test_the_report_of_another_output_is_not_shown_for_it(tmp_path: Path, clip_folder: Path) -> None:
    """Two rounds may write the same report; the first one, up to date, then makes its own again."""
    corpus = simple_corpus(tmp_path / "corpus", 6)
    first = mine_settings(tmp_path, corpus, clip_folder)
    known = stage.run(first)
    stage.run(mine_settings(tmp_path, corpus, clip_folder, k=3, output=tmp_path / "other"))
    again = stage.run(first)
    assert not again.up_to_date
    assert again.results == {**known.results, "indexes": {}}
    assert stage.run(first).up_to_date


def test_a_pool_of_any_size_is_cut_to_what_there_is_and_mined_in_pieces(
    tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A billion asked for of forty items takes no more memory than forty; pieces of a part change no byte."""
    corpus = tangled_corpus(tmp_path / "corpus")
    wanted = {"sampler": {"kind": "random", "pool": 10**9}, "part_queries": 1000}
    stage.run(mine_settings(tmp_path, corpus, clip_folder, **wanted))
    monkeypatch.setattr(candidates, "_POOLED_ITEMS", 100)
    stage.run(mine_settings(tmp_path, corpus, clip_folder, **wanted, output=tmp_path / "pieces"))
    assert bytes_of(tmp_path / "candidates") == bytes_of(tmp_path / "pieces")


def test_another_k_embeds_nothing_again(tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedding cache outlives the candidates: a new k loads no model."""
    corpus = simple_corpus(tmp_path / "corpus", 6)
    stage.run(mine_settings(tmp_path, corpus, clip_folder))

    def refuse(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(DualEncoder, "load", refuse)
    stage.run(mine_settings(tmp_path, corpus, clip_folder, k=3))
    assert {len(row["candidate_ids"]) for row in rows_of(tmp_path / "candidates")} == {3}


def test_the_report_counts_what_the_rows_hold(tmp_path: Path, clip_folder: Path) -> None:
    """Counts and recall are those of the rows; quantiles are NumPy's to a bin's width."""
    corpus = tangled_corpus(tmp_path / "corpus")
    report = stage.run(mine_settings(tmp_path, corpus, clip_folder, k=20))
    for direction in ("i2t", "t2i"):
        rows = [row for row in rows_of(tmp_path / "candidates") if row["direction"] == direction]
        results = report.results["directions"][direction]
        asked = [row for row in rows if row["positive_ids"]]
        hits = 0
        for row in asked:
            better = [s for s in row["similarities"] if s > max(row["positive_similarities"])]
            hits += len(better) < 20
        assert results["queries"] == len(rows)
        assert results["queries_without_positive"] == len(rows) - len(asked)
        assert results["candidates"] == sum(len(row["candidate_ids"]) for row in rows)
        assert results["short_lists"] == sum(len(row["candidate_ids"]) < 20 for row in rows)
        assert results["recall_at_k"] == pytest.approx(hits / len(asked), abs=1e-6)
        values = np.array([s for row in rows for s in row["similarities"]])
        for share, quantile in results["similarity_quantiles"]["candidates"].items():
            assert quantile == pytest.approx(np.quantile(values, float(share), method="inverted_cdf"), abs=1e-4)
    assert report.results["directions"]["i2t"]["queries_without_positive"] == 9  # pictures 11 to 19
    assert report.results["device"] == "cpu"
    assert set(report.seconds) == {"grouping", "embedding", "indexing", "searching", "recall of the index", "writing"}


def test_a_split_needs_something_to_choose_from(tmp_path: Path, clip_folder: Path) -> None:
    """An unknown split, and a split with one picture (under two ids), are refused with what was found."""
    images = [("a", random_image(1), "train"), ("b", random_image(1), "train")]
    captions = [("x", "a b", "train"), ("y", "c d", "train")]
    corpus = write_corpus(tmp_path / "corpus", images, captions, [("a", "x"), ("b", "x")])
    with pytest.raises(CorpusError, match="split 'val' has 0 images and 0 captions"):
        stage.run(mine_settings(tmp_path, corpus, clip_folder, split="val"))
    with pytest.raises(CorpusError, match="1 different images and 2 different captions"):
        stage.run(mine_settings(tmp_path, corpus, clip_folder))


def test_a_k_that_no_query_can_get_is_refused(tmp_path: Path, clip_folder: Path) -> None:
    """More candidates than there are different items on the smaller side: said before anything is embedded."""
    corpus = simple_corpus(tmp_path / "corpus", 4)
    with pytest.raises(SettingsError, match=r"4 different images and 8 different captions; .* k of 5 .*; set k to at most 4"):
        stage.run(mine_settings(tmp_path, corpus, clip_folder, k=5))


def test_more_parts_than_their_names_can_order_are_refused(
    tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything else is done, with the smallest size that will do; were the limit three parts, for twelve captions four."""
    corpus = simple_corpus(tmp_path / "corpus", 6)
    monkeypatch.setattr(parts, "MOST_PARTS", 3)
    refused = mine_settings(tmp_path, corpus, tmp_path / "no encoder", part_queries=3)
    message = (
        r"^part_queries is 3, which cuts 12 queries into 4 parts; expected at most 3 parts .*; set part_queries to at least 4$"
    )
    with pytest.raises(SettingsError, match=message):
        stage.run(refused)
    stage.run(mine_settings(tmp_path, corpus, clip_folder, part_queries=4))
    assert len(InputFolder(tmp_path / "candidates", "candidates").part_names("t2i-")) == 3


def test_as_many_parts_as_are_allowed_are_in_the_order_of_their_names() -> None:
    """Every reader takes them so."""
    names = [name for name, _, _ in cut_parts("i2t", parts.MOST_PARTS, 1)]
    parts.check_parts(len(names), 1)
    assert names == sorted(names)
    assert names[-1] == "i2t-99999.parquet"


def test_no_candidates_at_all_is_no_list(tmp_path: Path, clip_folder: Path) -> None:
    """Where every item is a positive, the lists are empty and counted as such."""
    images = [("a", random_image(1), "train"), ("b", random_image(2), "train")]
    captions = [("x", "a b", "train"), ("y", "c d", "train")]
    pairs = [(image, caption) for image in "ab" for caption in "xy"]
    corpus = write_corpus(tmp_path / "corpus", images, captions, pairs)
    report = stage.run(mine_settings(tmp_path, corpus, clip_folder, k=2))
    assert [row["candidate_ids"] for row in rows_of(tmp_path / "candidates")] == [[], [], [], []]
    assert report.results["directions"]["i2t"]["empty_lists"] == 2
    assert report.results["directions"]["i2t"]["similarity_quantiles"]["candidates"] is None


def test_missing_faiss_is_said_before_anything_is_embedded(
    tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of embedding do not end in a missing package."""

    def missing() -> None:
        raise MissingDependencyError("faiss cannot be imported")

    monkeypatch.setattr(gpus, "load_faiss", missing)
    settings = mine_settings(tmp_path, simple_corpus(tmp_path / "corpus", 6), clip_folder)
    with pytest.raises(MissingDependencyError, match="faiss"):
        stage.run(settings)
    assert not (tmp_path / "cache" / "embeddings").exists()


@pytest.mark.parametrize(
    ("device", "place", "ids"), [("auto", "2 GPUs (0, 1)", [0, 1]), ("cuda:1", "GPU 1", [1]), ("cpu", "cpu", [])]
)
def test_the_output_says_where_was_searched(
    device: str, place: str, ids: list[int], tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAISS's (pretended) GPUs are taken unless the CPU was asked for, even where torch sees none; the candidates are the same."""
    corpus = tangled_corpus(tmp_path / "corpus")
    stage.run(mine_settings(tmp_path, corpus, clip_folder, output=tmp_path / "plain"))
    monkeypatch.setattr(gpus, "load_faiss", lambda: PretendedGpus(2))
    monkeypatch.setattr(stage, "device_name", lambda choice: "cpu")
    report = stage.run(mine_settings(tmp_path, corpus, clip_folder, device=device))
    assert dict(report.table)["search"] == f"exact on {place}"
    assert [found["gpu_ids"] for found in report.results["indexes"].values()] == [ids, ids]
    assert rows_of(tmp_path / "candidates") == rows_of(tmp_path / "plain")


def test_the_output_says_what_gpus_left_to_the_cpu(tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a GPU's limit 20 items, every image's search for 6 of 30 captions and the margin of 16 would pass it."""
    corpus = tangled_corpus(tmp_path / "corpus")
    monkeypatch.setattr(gpus, "load_faiss", PretendedGpus)
    monkeypatch.setattr(search, "GPU_MAX_ITEMS", 20)
    monkeypatch.setattr(stage, "device_name", lambda choice: "cpu")
    found = stage.run(mine_settings(tmp_path, corpus, clip_folder, device="auto"))
    left = found.results["indexes"]["i2t"]["left_to_cpu"]
    assert left >= 24
    assert f"exact on GPU 0, {left} searches of more than these can on the cpu" in dict(found.table)["search"]


def test_one_direction_lets_go_of_its_index_before_the_other_is_made(
    tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPUs have room for the larger of the two, not for both."""
    searches: list[weakref.ref[Search]] = []
    make_search = miners.make_search

    def noted(*given: Any, **options: Any) -> Search:
        assert [made() for made in searches] == [None] * len(searches)
        made = make_search(*given, **options)
        searches.append(weakref.ref(made))
        return made

    monkeypatch.setattr(miners, "make_search", noted)
    stage.run(mine_settings(tmp_path, simple_corpus(tmp_path / "corpus", 6), clip_folder))
    assert len(searches) == 2


def test_an_encoder_that_is_none_is_refused(tmp_path: Path) -> None:
    """A folder that is not there is named."""
    settings = mine_settings(tmp_path, simple_corpus(tmp_path / "corpus", 6), tmp_path / "nothing")
    with pytest.raises(ModelError, match="nothing: there is no such folder"):
        stage.run(settings)


def test_killed_and_started_again_gives_the_same_bytes(tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL after the first part; the same command keeps that part and ends with the bytes of an unkilled run."""
    corpus = simple_corpus(tmp_path / "corpus", 30)
    settings = mine_settings(tmp_path, corpus, clip_folder, part_queries=1)
    code = (
        "import sys; from cprd_pipeline.mining.run import run; from cprd_pipeline.mining.settings import MineSettings; "
        "run(MineSettings.model_validate_json(sys.argv[1]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, settings.model_dump_json()], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    parts = tmp_path / "cache" / "state" / "candidates"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not list(parts.glob("*/_parts/i2t-00000.parquet.json")):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (first,) = parts.glob("*/output/i2t-00000.parquet")
    kept = first.stat().st_mtime_ns
    assert not settings.output.exists()

    stage.run(settings)
    assert (settings.output / "i2t-00000.parquet").stat().st_mtime_ns == kept
    monkeypatch.setenv("CPRD_CACHE", str(tmp_path / "other-cache"))
    stage.run(mine_settings(tmp_path, corpus, clip_folder, part_queries=1, output=tmp_path / "unkilled"))
    assert bytes_of(settings.output) == bytes_of(tmp_path / "unkilled")
    assert not list((tmp_path / "cache" / "state").glob("candidates/*"))
