"""Tables of the corpus folder that one Arrow array of strings cannot hold."""

import numpy as np
import pyarrow as pa
import pytest

from cprd_pipeline.corpus import tables
from cprd_pipeline.corpus.tables import _positive_table
from cprd_pipeline.store.output import write_parquet
from cprd_pipeline.store.schemas import POSITIVES, check_schema

IMAGES, CAPTIONS = ["i", "an image ü"], ["c0", "", "caption 2"]
ROWS = np.array([[0, 0], [0, 1], [0, 2], [1, 0], [1, 2], [1, 2]])
PAIRS = {"image_id": [IMAGES[image] for image, _ in ROWS], "caption_id": [CAPTIONS[caption] for _, caption in ROWS]}


@pytest.mark.parametrize("most", [11, 12, 40])
def test_positives_are_cut_where_their_ids_pass_an_array(monkeypatch, most):
    """No chunk holds more bytes of ids than 32-bit offsets reach; the column is `string` all the same."""
    monkeypatch.setattr(tables, "_CHUNK_BYTES", most)
    table = check_schema(_positive_table(IMAGES, CAPTIONS, ROWS), POSITIVES, "positives")
    assert table.to_pydict() == PAIRS
    sizes = [[sum(len(item.encode()) for item in chunk.to_pylist()) for chunk in column.chunks] for column in table.columns]
    assert sizes == {11: [[3, 11, 11, 11], [11, 11, 9]], 12: [[3, 11, 11, 11], [11, 11, 9]], 40: [[36], [31]]}[most]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:0]])
def test_smaller_tables_are_written_as_one_array_is(tmp_path, rows):
    """Byte for byte, none at all included."""
    pairs = {name: column[: len(rows)] for name, column in PAIRS.items()}
    write_parquet(tmp_path / "whole", pa.table({name: pa.array(ids, pa.string()) for name, ids in pairs.items()}, schema=POSITIVES))
    write_parquet(tmp_path / "cut", _positive_table(IMAGES, CAPTIONS, rows))
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()
