"""Rounds, filters and indexes through the stage: what the folder records, what the report says, what runs again."""

from pathlib import Path

import pytest

from cprd_pipeline.errors import CorpusError
from cprd_pipeline.mining import run as stage
from cprd_pipeline.store.folder import InputFolder
from tests.mining.small_world import write_groups
from tests.mining.test_mine import bytes_of, mine_settings, rows_of, tangled_corpus
from tests.tiny_encoders import random_image, simple_corpus, tiny_clip, write_corpus


def test_a_second_round_adds_to_the_first(tmp_path: Path, clip_folder: Path) -> None:
    """Another encoder's lists hold its own candidates and the first round's, by its own similarities, each content once."""
    corpus = tangled_corpus(tmp_path / "corpus")
    first = stage.run(mine_settings(tmp_path, corpus, clip_folder))
    student = tiny_clip(tmp_path / "student", seed=5)
    alone = mine_settings(tmp_path, corpus, student, output=tmp_path / "alone")
    stage.run(alone)
    merging = mine_settings(tmp_path, corpus, student, output=tmp_path / "two", round="2", merge=[tmp_path / "candidates"])
    report = stage.run(merging)
    rounds = [rows_of(tmp_path / name) for name in ("candidates", "alone", "two")]
    added = 0
    for old, new, both in zip(*rounds, strict=True):
        assert set(both["candidate_ids"]) == {*old["candidate_ids"], *new["candidate_ids"]}
        assert len(both["candidate_ids"]) == len(set(both["candidate_ids"])) == len(new["candidate_ids"]) + both["merged"]
        assert both["similarities"] == sorted(both["similarities"], reverse=True)
        known = dict(zip(new["candidate_ids"], new["similarities"], strict=True))
        assert known.items() <= dict(zip(both["candidate_ids"], both["similarities"], strict=True)).items()
        added += both["merged"]
    assert added == sum(found["merged"] for found in report.results["directions"].values()) > 0
    manifest = InputFolder(tmp_path / "two", "candidates").manifest
    assert manifest.inputs["merged-1"] == InputFolder(tmp_path / "candidates", "candidates").manifest.digest
    assert manifest.inputs["encoder"] == report.results["encoder"] != first.results["encoder"]
    assert manifest.settings["round"] == report.results["round"] == "2"
    assert stage.run(merging).up_to_date


def test_a_changed_group_file_mines_again(tmp_path: Path, clip_folder: Path) -> None:
    """Its content, not its path, is part of the output; nothing of a query's group is in its list."""
    corpus = simple_corpus(tmp_path / "corpus", 8)
    groups = {f"image-{row:03d}": [str(row // 2)] for row in range(8)}
    path = write_groups(tmp_path / "groups.csv", "image_id", groups)
    settings = mine_settings(tmp_path, corpus, clip_folder, k=4, filters={"groups": path})
    report = stage.run(settings)
    for row in rows_of(tmp_path / "candidates"):
        own = int(row["query_id"][-3:]) // (2 if row["direction"] == "i2t" else 4)
        others = [int(name[-3:]) // (4 if row["direction"] == "i2t" else 2) for name in row["candidate_ids"]]
        assert len(others) == 4
        assert own not in others
    assert report.results["directions"]["i2t"]["dropped_by_filter"]["same_group"] > 0
    assert stage.run(settings).up_to_date
    write_groups(path, "image_id", {**groups, "image-000": ["7"]})
    assert not stage.run(settings).up_to_date
    path.unlink()
    with pytest.raises(CorpusError, match=r"groups.csv: there is no such file"):
        stage.run(settings)


def test_sampled_candidates_do_not_depend_on_parts_and_blocks(tmp_path: Path, clip_folder: Path) -> None:
    """Another part size or search block draws the same candidates; another seed draws others."""
    corpus = tangled_corpus(tmp_path / "corpus")

    def rows(name: str, seed: int = 0, **changes: int) -> list[list[str]]:
        sampler = {"kind": "random", "pool": 15, "seed": seed}
        stage.run(mine_settings(tmp_path, corpus, clip_folder, output=tmp_path / name, sampler=sampler, **changes))
        return [row["candidate_ids"] for row in rows_of(tmp_path / name)]

    assert rows("a", query_block=3) == rows("b", part_queries=7, query_block=100, index_block=4)
    assert rows("a", seed=1) != rows("b", part_queries=7, query_block=100, index_block=4)


def test_the_table_fits_a_terminal_and_advice_is_given(
    tmp_path: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Filters that drop nearly everything: rows of 80 columns at most, and a line on stderr that names the filter."""
    corpus = tangled_corpus(tmp_path / "corpus")
    report = stage.run(mine_settings(tmp_path, corpus, clip_folder, output=tmp_path / "c", filters={"min_similarity": 0.99}))
    width = max(len(what) for what, _ in report.table)
    assert max(width + len(value) + 4 for _, value in report.table[:-1]) <= 80  # the last row has the path of the test's own folder
    table = dict(report.table)
    assert table["dropped: min similarity"].split() == [
        f"{found['dropped_by_filter']['min_similarity']:,}" for found in report.results["directions"].values()
    ]
    assert "dropped: same group" not in table
    assert "filters.min_similarity 0.99: lower it" in capsys.readouterr().err
    assert [line for line in report.results["advice"] if line.startswith("i2t: 24 of 24 lists have fewer than 6 candidates")]
    files = [path for path in (tmp_path / "c").iterdir() if path.suffix == ".parquet"]
    assert report.results["bytes"] == sum(path.stat().st_size for path in files)


def test_captions_equal_but_for_case_are_no_candidates(tmp_path: Path, clip_folder: Path) -> None:
    """On by default: another image's caption with the same words in capitals is the image's own caption."""
    images = [(f"i{row}", random_image(row), "train") for row in range(3)]
    captions = [("c0", "a dog", "train"), ("c1", "A  Dog", "train"), ("c2", "a cat", "train"), ("c3", "one bird", "train")]
    pairs = [("i0", "c0"), ("i1", "c2"), ("i2", "c3")]
    corpus = write_corpus(tmp_path / "corpus", images, captions, pairs)
    report = stage.run(mine_settings(tmp_path, corpus, clip_folder, k=3))
    lists = {row["query_id"]: set(row["candidate_ids"]) for row in rows_of(tmp_path / "candidates")}
    assert lists["i0"] == {"c2", "c3"}
    assert len(lists["i1"] & {"c0", "c1"}) == 1
    assert lists["c1"] == {"i1", "i2"}
    dropped = [found["dropped_by_filter"]["same_text"] for found in report.results["directions"].values()]
    assert dropped == [3, 1]
    off = mine_settings(tmp_path, corpus, clip_folder, k=3, output=tmp_path / "off", filters={"same_text": False})
    stage.run(off)
    assert {row["query_id"]: set(row["candidate_ids"]) for row in rows_of(tmp_path / "off")}["i0"] == {"c1", "c2", "c3"}


def test_an_approximate_index_is_measured(tmp_path: Path, clip_folder: Path) -> None:
    """Its recall against exact search is in report and table, and a second run has nothing to do."""
    corpus = simple_corpus(tmp_path / "corpus", 30)
    index = {"kind": "hnsw", "hnsw_m": 8, "recall_sample": 20}
    settings = mine_settings(tmp_path, corpus, clip_folder, index=index)
    report = stage.run(settings)
    assert {found["kind"] for found in report.results["indexes"].values()} == {"hnsw"}
    assert all(0.5 < found["recall"] <= 1 for found in report.results["indexes"].values())
    assert dict(report.table)["recall of hnsw, i2t"].endswith("against exact search")
    first = bytes_of(tmp_path / "candidates")
    assert stage.run(settings).up_to_date
    exact = mine_settings(tmp_path, corpus, clip_folder, output=tmp_path / "exact")
    assert "recall" not in stage.run(exact).results["indexes"]["i2t"]
    assert bytes_of(tmp_path / "exact").keys() == first.keys()
