"""Earlier rounds that do not fit: one line each, before anything is embedded."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cprd_pipeline.errors import StoreError
from cprd_pipeline.mining.contents import group_contents
from cprd_pipeline.mining.earlier import EarlierLists, open_earlier
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import CANDIDATES
from tests.corpus.counted_hashes import count_hashes
from tests.mining.small_world import Earlier, World, mined

WORLD = World([0, 1, 2, 3], [3, 5, 6, 7], {(n, n) for n in range(4)}, np.eye(4, 2, dtype="f4"), np.eye(12, 2, dtype="f4"), 0)
NOTHING = Earlier({"i2t": [{}] * 4, "t2i": [{}] * 4})


def settings(folder: Path, **changes: object) -> MineSettings:
    """Of a run over the world's corpus."""
    return MineSettings.model_validate({"k": 2, "corpus": folder / "corpus", **changes})


@pytest.mark.parametrize("kind", ["candidates", "rankings"])
def test_another_corpus_is_refused(tmp_path: Path, kind: str) -> None:
    """Ids of another corpus may name other things."""
    corpus = WORLD.write(tmp_path / "corpus")
    folder = NOTHING.write(WORLD, corpus, tmp_path / "round", kind, made_from="0123456789")
    changes = {"merge": [folder]} if kind == "candidates" else {"sampler": {"kind": "teacher", "rankings": folder}}
    with pytest.raises(
        StoreError, match=rf"round: {kind} of another corpus \(01234567\); expected of .*corpus \({corpus.digest[:8]}"
    ):
        mined(WORLD, corpus, settings(tmp_path, **changes))


def write_round(folder: Path, corpus_digest: str, rows: list[tuple[str, str, list[str]]]) -> Path:
    """A candidates folder from (direction, query, candidates)."""
    writer = OutputWriter(folder, "candidates", {}, {"corpus": corpus_digest})
    for direction in ("i2t", "t2i"):
        empty = {field.name: [] if pa.types.is_list(field.type) else 0 for field in CANDIDATES}
        lines = [
            empty | {"query_id": query, "direction": direction, "candidate_ids": found, "similarities": [0.0] * len(found)}
            for other, query, found in rows
            if other == direction
        ]
        writer.write_table(f"{direction}-00000.parquet", pa.Table.from_pylist(lines, schema=CANDIDATES))
    writer.finish()
    return folder


def test_other_queries_or_items_are_refused(tmp_path: Path) -> None:
    """Fewer queries, other queries, and a candidate that is not in the split."""
    corpus = WORLD.write(tmp_path / "corpus")
    images, captions = WORLD.ids("i2t")
    whole = [("i2t", name, []) for name in images] + [("t2i", name, []) for name in captions]

    def refused(name: str, rows: list[tuple[str, str, list[str]]], message: str) -> None:
        folder = write_round(tmp_path / name, corpus.digest, rows)
        with pytest.raises(StoreError, match=message):
            mined(WORLD, corpus, settings(tmp_path, merge=[folder]))

    refused("fewer", whole[1:], "fewer: holds 3 i2t queries; expected the 4 of the split")
    refused("others", [("i2t", "elsewhere", []), *whole[1:]], "others: holds queries of another split")
    wrong = [("i2t", images[0], ["elsewhere"]), *whole[1:]]
    refused("items", wrong, "items: holds 'elsewhere', which is not in the split")


def test_small_blocks_of_a_large_part_read_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one query and blocks over two parts read each part once; two earlier rounds hash the items once."""
    corpus = WORLD.write(tmp_path / "corpus")
    lists = Earlier({"i2t": [{3: 0.5}, {5: 1.0, 6: 0.5}, {}, {3: 1.0}], "t2i": [{}] * 4})
    folder = open_earlier(lists.write(WORLD, corpus, tmp_path / "round", "rankings"), "rankings", corpus)
    read: list[str] = []
    table = InputFolder.table
    monkeypatch.setattr(InputFolder, "table", lambda self, name: read.append(name) or table(self, name))
    split = corpus.split("train")
    images, captions = group_contents(corpus.images, split.images), group_contents(corpus.captions, split.captions)
    counts = count_hashes(monkeypatch)
    texts = np.array(WORLD.captions)[captions.first]
    for blocks in ([(row, row + 1) for row in range(4)], [(0, 2), (2, 4)]):
        read.clear()
        earlier = EarlierLists(folder, "i2t", images, captions)
        found = [earlier.of(*block) for block in blocks]
        assert [texts[items] for block in found for items in block.items] == [3, 5, 6, 3]
        assert np.concatenate([block.scores for block in found]).tolist() == [0.5, 1.0, 0.5, 1.0]
        assert read == ["i2t-00000.parquet", "i2t-00001.parquet"]
    assert sum(counts) == len(captions.ids) + 2 * 4


def test_a_folder_of_another_kind_or_none_is_refused(tmp_path: Path) -> None:
    """A corpus is no round; a path without a folder is named."""
    corpus = WORLD.write(tmp_path / "corpus")
    with pytest.raises(StoreError, match="corpus: a corpus folder; expected a candidates folder"):
        mined(WORLD, corpus, settings(tmp_path, merge=[tmp_path / "corpus"]))
    with pytest.raises(StoreError, match="nowhere: there is no such folder"):
        mined(WORLD, corpus, settings(tmp_path, merge=[tmp_path / "nowhere"]))
