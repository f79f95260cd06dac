"""The user's group file: what is read, and what is wrong with it in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cprd_pipeline.errors import CorpusError
from cprd_pipeline.mining import groups
from cprd_pipeline.mining.groups import digest_groups, same_group
from cprd_pipeline.mining.inputs import open_inputs
from cprd_pipeline.mining.relations import SameGroup
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.mining.sides import group_sides
from tests.mining.small_world import World


def read(folder: Path, path: Path, column: str = "group") -> SameGroup:
    """The relation over a corpus of four images with a caption each; ids are i00 to i03, c00 to c03, in another order."""
    world = World([0, 1, 2, 3], [3, 5, 6, 7], {(n, n) for n in range(4)}, np.eye(4), np.eye(12), 0)
    corpus = world.write(folder / "corpus")
    split = corpus.split("train")
    return same_group(path, column, corpus, split, group_sides(corpus, split, 1))


def holds(relation: SameGroup) -> list[list[bool]]:
    """For each image (by id) and caption (by id)."""
    images, captions = np.divmod(np.arange(16), 4)
    return relation.holds(images, captions).reshape(4, 4).tolist()


def test_ids_that_look_like_numbers_stay_text_and_parquet_equals_csv(tmp_path: Path) -> None:
    """A video id 007 is not 7; a Parquet file with numbers as groups reads the same."""
    given = {"i00": "007", "i01": "7", "i02": "007", "elsewhere": "7"}
    (tmp_path / "g.csv").write_text("video,image_id\n" + "".join(f"{group},{name}\n" for name, group in given.items()))
    found = holds(read(tmp_path, tmp_path / "g.csv", "video"))
    columns = {"image_id": list(given), "video": [10, 20, 10, 20], "other": [None] * 4}
    pq.write_table(pa.table(columns), tmp_path / "g.parquet")
    assert found == holds(read(tmp_path, tmp_path / "g.parquet", "video"))
    assert sum(map(sum, found)) == 5  # i01 with its caption; i00 and i02 with both of theirs; i03 and its caption with none


def written(path: Path, content: str) -> Path:
    """A file with this text."""
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("g.csv", "image_id,group\nnobody,1\n", r"g.csv, image_id: 'nobody' is not in the corpus"),
        ("g.csv", "caption_id,group\ni00,1\n", r"g.csv, caption_id: 'i00' is not in the corpus"),
        ("g.csv", "id,group\ni00,1\n", r"has the columns id, group; expected either image_id or caption_id, and group"),
        ("g.csv", "image_id,caption_id,group\ni00,c00,1\n", "expected either image_id or caption_id"),
        ("g.csv", "image_id,product\ni00,1\n", "set filters.group_column"),
        ("g.csv", "image_id,group\ni00,\ni01,2\n", "1 empty values; expected an id and a group on every line"),
        ("g.csv", "image_id,group\ni00\n", "g.csv: cannot be read"),
        ("g.csv", "image_id,group,group\ni00,1,2\n", "expected either image_id or caption_id, and group, each once"),
        ("g.csv", 'image_id,group\ni00,"a\ni01,b\ni02,c"\n', "a value goes over several lines.*a quote that is not closed"),
        ("g.csv", "", "g.csv: cannot be read"),
        ("g.parquet", "no parquet", "g.parquet: cannot be read"),
        ("g.json", "{}", "cannot tell what kind of file this is; expected a .csv or .parquet file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    """What is wrong, in one line."""
    with pytest.raises(CorpusError, match=message) as caught:
        read(tmp_path, written(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the setting that names it."""
    with pytest.raises(CorpusError, match=r"g.csv: there is no such file; .*mend filters.groups"):
        digest_groups(tmp_path / "g.csv")


def test_a_folder_of_parquet_files_is_no_group_file(tmp_path: Path) -> None:
    """Arrow would read it, but a change in it would go unseen: a file's digest is a part of what the output is made from."""
    world = World([0, 1, 2, 3], [3, 5, 6, 7], {(n, n) for n in range(4)}, np.eye(4), np.eye(12), 0)
    corpus = world.write(tmp_path / "corpus")
    folder = tmp_path / "groups.parquet"
    folder.mkdir()
    pq.write_table(pa.table({"image_id": ["i00"], "group": ["a"]}), folder / "part-0.parquet")
    settings = MineSettings.model_validate({"filters": {"groups": folder}})
    with pytest.raises(CorpusError, match=r"groups.parquet: is a folder; expected a .csv or .parquet file; .*into one file$"):
        open_inputs(settings, corpus, "encoder")


@pytest.mark.parametrize("name", ["g.csv", "g.parquet"])
def test_no_text_at_all_is_no_group(tmp_path: Path, name: str) -> None:
    """In Parquet as in CSV, for ids too; else all items without a group would share one."""
    columns = {"image_id": ["i00", "i01", ""], "group": ["", "a", "a"]}
    if name == "g.csv":
        (tmp_path / name).write_text("image_id,group\ni00,\ni01,a\n,a\n")
    else:
        pq.write_table(pa.table({**columns, "image_id": [*columns["image_id"][:2], None]}), tmp_path / name)
    with pytest.raises(CorpusError, match="2 empty values; expected an id and a group on every line"):
        read(tmp_path, tmp_path / name)


def test_another_encoding_is_named(tmp_path: Path) -> None:
    """Latin-1, in a column that nobody asked for."""
    (tmp_path / "g.csv").write_bytes(b"image_id,gr\xfc,group\ni00,a,b\n")
    with pytest.raises(CorpusError, match=r"g.csv: cannot be read .*in UTF-8"):
        read(tmp_path, tmp_path / "g.csv")


@pytest.mark.parametrize("column", [pa.array([[1]]), pa.array([{"a": 1}]), pa.array([b"\xff"], pa.binary())])
def test_groups_that_are_no_text_are_named(tmp_path: Path, column: pa.Array) -> None:
    """Lists, records, and bytes that are no UTF-8."""
    pq.write_table(pa.table({"image_id": ["i00"], "group": column}), tmp_path / "g.parquet")
    with pytest.raises(CorpusError, match=r"g.parquet: group is of type .*; expected text or numbers"):
        read(tmp_path, tmp_path / "g.parquet")


def test_csv_is_read_by_path_and_never_through_a_python_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow reads ahead on a thread of its own, and a Python file needs the interpreter for that, which may be ending.

    With a bad line in 2 MB, 3 of 18 processes that read so never ended; 30 of 30 that read by path did.
    """
    (tmp_path / "g.csv").write_text("image_id,group\ni00,a\n")
    sources: list[object] = []
    for name in ("open_csv", "read_csv"):
        monkeypatch.setattr(groups.pa_csv, name, _noting(getattr(groups.pa_csv, name), sources))
    read(tmp_path, tmp_path / "g.csv")
    assert sources == [tmp_path / "g.csv"] * 2


def _noting(call: Callable[..., Any], sources: list[object]) -> Callable[..., Any]:
    def noted(source: object, **options: Any) -> Any:
        sources.append(source)
        return call(source, **options)

    return noted
