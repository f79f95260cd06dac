"""Reading rankings: the ids of a corpus are hashed once, however many parts and passes there are."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.ranking_parts import RankingsReader
from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import RANKINGS
from tests.corpus.counted_hashes import count_hashes
from tests.tiny_encoders import simple_corpus


def write_rankings(folder: Path, parts: list[list[tuple[str, str, list[str]]]]) -> InputFolder:
    """Rankings from (direction, query, candidates)."""
    writer = OutputWriter(folder, "rankings", {"name": folder.name}, {})
    for number, lines in enumerate(parts):
        rows = []
        for direction, query, candidates in lines:
            row = {field.name: [] if pa.types.is_list(field.type) else 0 for field in RANKINGS}
            scores = np.linspace(1, 0, len(candidates)).tolist()
            row |= {"query_id": query, "direction": direction, "candidate_ids": candidates, "teacher_scores": scores}
            rows.append(row | {"similarities": scores, "false_negative": [False] * len(scores)})
        writer.write_table(f"part-{number:05d}.parquet", pa.Table.from_pylist(rows, schema=RANKINGS))
    writer.finish()
    return InputFolder(folder, "rankings")


def test_two_passes_hash_a_side_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside what the parts ask for."""
    counts = count_hashes(monkeypatch)
    corpus = Corpus(simple_corpus(tmp_path / "corpus", 30))
    images, captions = corpus.images.ids, corpus.captions.ids
    parts = [[("i2t", images[row], captions[row : row + 2])] for row in range(20)] + [[("t2i", captions[3], images[7:9])]]
    before = sum(counts)
    reader = RankingsReader([write_rankings(tmp_path / "rankings", parts)], corpus)
    for _ in range(2):
        found = [*reader.parts()]
        assert [part.items.tolist() for part in found] == [*([row, row + 1] for row in range(20)), [7, 8]]
        assert [part.query_rows.tolist() for part in found] == [*([row] for row in range(20)), [3]]
    # The corpus was read with its positives, so the tables of both sides were there; one query and two items a part.
    assert sum(counts) - before == 2 * 21 * 3


def test_strangers_are_named(tmp_path: Path) -> None:
    """With their file."""
    corpus = Corpus(simple_corpus(tmp_path / "corpus", 2))
    folder = write_rankings(tmp_path / "rankings", [[("i2t", corpus.images.ids[0], [corpus.captions.ids[0], "x"])]])
    with pytest.raises(StoreError, match=r"part-00000\.parquet: 'x' is not in the corpus; expected ids of this corpus; run score"):
        [*RankingsReader([folder], corpus).parts()]
