"""CSV, TSV, JSON lines, Parquet and saved datasets: columns, rows, and images inside of tables."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cprd_pipeline.corpus.formats.parquet_table import ParquetCell
from cprd_pipeline.errors import CorpusError
from tests.corpus.conftest import picture
from tests.corpus.made_sources import NAMES, TEXTS, dataset, parquet_bytes, read, table, texts_of


def save(folder, content, name="made.csv"):
    """A text file."""
    path = folder / name
    path.write_bytes(content.encode())
    return path


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_delimiters_are_found(tmp_path, delimiter):
    """By the header; setting it says the same."""
    path = table(tmp_path, delimiter)
    assert texts_of(read(path)) == TEXTS
    assert read(path) == read(path, "csv", delimiter=delimiter)


def test_a_wrong_delimiter(tmp_path):
    """The header shows what came of it."""
    path = table(tmp_path)
    with pytest.raises(
        CorpusError, match=r"line 1 \(delimiter tab\): no column for the image and the caption among 'image,caption'"
    ):
        read(path, "csv", delimiter="\t")


def test_quoted_fields(tmp_path):
    """Delimiters, doubled quotes and line breaks inside of quotes belong to the caption; lines are counted with them."""
    path = save(tmp_path, 'image,caption\n0.png,"A ""dog"", running\nfast"\n1.png,a cat\n,a bird\n')
    with pytest.raises(CorpusError, match=r"line 5: image is empty; expected an image file"):
        read(path)
    records = read(path, unpaired="keep")
    assert [caption.text for caption in records.captions] == ['A "dog", running\nfast', "a cat", "a bird"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0.png,a dog, running\n", r"line 2 has 3 fields; expected 2 as in the header; quote the field"),
        ("0.png\n", r"line 2 has 1 fields"),
        ('0.png,"a dog\n1.png,a cat\n', r"line 2 is no row of a table \(unexpected end of data\).*mend the quotes"),
        ('0.png,"a dog" runs\n', r"line 2 is no row of a table"),
        ("0.png," + "x" * 140_000, r"line 2 is no row of a table \(field larger"),
        ("0.png,a\n0.png,b\n\n../0.png,a dog\n", r"line 5: path '\.\./0\.png' leaves"),
    ],
)
def test_spoilt_rows(tmp_path, rows, message):
    """The line is named."""
    with pytest.raises(CorpusError, match=message):
        read(save(tmp_path, "image,caption\n" + rows), "csv")


@pytest.mark.parametrize(
    ("header", "settings", "message"),
    [
        ("picture,words", {}, r"no column for the image and the caption among 'picture', 'words'; name it in files.columns.image"),
        ("image,words", {}, r"no column for the caption among"),
        (
            "picture,words",
            {"columns": {"image": "img", "caption": "words"}},
            r"no column 'img'; expected one of 'picture', 'words'",
        ),
        ("image,image", {}, r"line 1 names the column 'image' twice"),
        ('image,"caption', {}, r"line 1 is no header"),
    ],
)
def test_missing_columns(tmp_path, header, settings, message):
    """What is there is listed."""
    with pytest.raises(CorpusError, match=message):
        read(save(tmp_path, f"{header}\n0.png,a dog\n"), "csv", **settings)


def test_columns_by_name(tmp_path):
    """Ids and splits from columns; one caption id in two rows is one caption of two images."""
    content = "key,file,words,part,number\na,0.png,two dogs,train,c0\nb,1.png,two dogs,train,c0\nc,2.png,a cat,test,c1\n"
    columns = {"image": "file", "caption": "words", "split": "part", "image_id": "key", "caption_id": "number"}
    records = read(save(tmp_path, content), columns=columns)
    assert [(i.image_id, i.path, i.split) for i in records.images] == [
        ("a", "0.png", "train"),
        ("b", "1.png", "train"),
        ("c", "2.png", "test"),
    ]
    assert [(c.caption_id, c.image_ids) for c in records.captions] == [("c0", ("a", "b")), ("c1", ("c",))]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0.png,a,train,c0", "1.png,b,train,c0"], r"line 3: caption 'c0' occurs more than once, with different texts"),
        (["0.png,a,train,c0", "0.png,a,train,c0"], r"line 3: caption id 'c0' occurs more than once"),
        (["0.png,a,train,c0", "0.png,b,val,c1"], r"line 3: image 0\.png is of split val, and of train"),
        (["0.png,a,train,c0", "1.png,b,,c1"], r"line 3: split is empty"),
        (["0.png,a,a b,c0"], r"line 2: split is 'a b'; expected letters, digits"),
    ],
)
def test_rows_that_contradict(tmp_path, rows, message):
    """Ids, texts and splits."""
    with pytest.raises(CorpusError, match=message):
        read(save(tmp_path, "\n".join(["image,caption,split,caption_id", *rows])))


def test_an_image_id_for_two_files(tmp_path):
    """An id stands for one file."""
    with pytest.raises(CorpusError, match=r"line 3: image id 'a' occurs more than once"):
        read(save(tmp_path, "image_id,image,caption\na,0.png,x\na,1.png,y\n"))


def test_json_lines(tmp_path):
    """Lists or single captions; keys may be absent where they are null; numbers may be ids."""
    rows = [
        {"image": "0.png", "text": "a dog", "image_id": 7},
        {"image": "1.png", "text": ["a cat", "a bird"], "sentids": [5, "6"], "extra": {}},
    ]
    records = read(save(tmp_path, "\n".join(map(json.dumps, rows)), "made.jsonl"))
    assert [(i.image_id, i.path) for i in records.images] == [("7", "0.png"), ("1.png", "1.png")]
    assert [(c.caption_id, c.text) for c in records.captions] == [("7#0", "a dog"), ("5", "a cat"), ("6", "a bird")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2 is not valid JSON at column 2; expected one object a line"),
        ("[1]", r"line 2 is no JSON object"),
        ('{"image": 5, "caption": "x"}', r"line 2: image is '5'; expected text"),
        ('{"image": "1.png", "caption": 5}', r"line 2: caption is '5'; expected text, or a list"),
        ('{"image": "1.png", "caption": ["a", 5]}', r"line 2: caption is '5'"),
        ('{"image": null, "caption": "x"}', r"line 2: image is empty"),
        ('{"image": "1.png", "caption": "x", "image_id": 1.5}', r"line 2: image_id is '1\.5'; expected a whole number or text"),
        ('{"image": "1.png", "caption": ["x", "y"], "caption_id": 5}', r"line 2: 1 of caption_id for 2 captions"),
    ],
)
def test_spoilt_json_lines(tmp_path, line, message):
    """The line and the key are named."""
    first = '{"image": "0.png", "caption": "a", "image_id": 1, "caption_id": 1}'
    with pytest.raises(CorpusError, match=message):
        read(save(tmp_path, f"{first}\n{line}\n", "made.jsonl"))


def test_files_inside_of_parquet(tmp_path):
    """Records hold the place of a cell, not its bytes; a null cell is a bad image, not a crash."""
    records = read(parquet_bytes(tmp_path))
    assert [image.image_id for image in records.images] == NAMES
    cell = records.images[5].stored
    assert isinstance(cell, ParquetCell)
    assert (cell.column, cell.group, cell.row) == ("image.bytes", 1, 1)
    assert cell.read() == picture(5)
    path = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"image": [picture(0), None], "caption": ["a", "b"]}), path)
    records = read(path)
    assert [image.image_id for image in records.images] == ["plain-00000000", "plain-00000001"]
    assert records.images[0].content == picture(0)
    with pytest.raises(CorpusError, match="the table has no bytes for this image"):
        _ = records.images[1].content
    path.unlink()
    with pytest.raises(CorpusError, match=r"bytes\.parquet: cannot be read as Parquet"):
        ParquetCell(tmp_path / "bytes.parquet", "nothing", 9, 9).read()


def test_a_struct_with_nothing_but_paths(tmp_path):
    """A dataset whose files were never embedded; no caption at all where the list is null."""
    path = tmp_path / "made.parquet"
    images = pa.array([{"bytes": None, "path": name} for name in NAMES], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": images, "caption": [["a"], *([None] * 5)]}), path)
    records = read(path)
    assert [image.path for image in records.images] == NAMES
    assert len(records.captions) == 1


def test_an_image_in_several_rows_of_bytes(tmp_path):
    """By its id, if it is the same file."""
    path = tmp_path / "made.parquet"
    columns = {"image": [picture(0)] * 2, "caption": ["a", "b"], "image_id": [7, 7]}
    pq.write_table(pa.table(columns), path)
    assert texts_of(read(path)) == {"7": ["a", "b"]}
    pq.write_table(pa.table(columns | {"image": [picture(0), picture(1)]}), path)
    with pytest.raises(CorpusError, match=r"row 1: image id '7' occurs more than once"):
        read(path)


def test_folders_of_parquet(tmp_path):
    """Every table in it, in order."""
    for number in (1, 0):
        pq.write_table(pa.table({"path": [f"{number}.png"], "text": ["a"]}), tmp_path / f"part-{number}.parquet")
    assert [image.image_id for image in read(tmp_path).images] == ["0.png", "1.png"]


def test_splits_of_a_saved_dictionary(tmp_path):
    """Its keys are splits, renamed by setting."""
    records = read(dataset(tmp_path, ["train", "validation"]), rename_splits={"validation": "val"})
    assert [image.split for image in records.images] == ["train"] * 3 + ["val"] * 3
    assert records.images[4].content == picture(4)


def test_a_dataset_with_paths(tmp_path):
    """Image columns may be plain text, or structs in which some files are embedded."""
    records = read(dataset(tmp_path, image=["0.png", "1.png"], caption=["a", "b"]))
    assert [(image.path, image.stored) for image in records.images] == [("0.png", None), ("1.png", None)]
    mixed = [{"bytes": picture(0), "path": "x"}, {"bytes": None, "path": "1.png"}]
    (tmp_path / "mixed").mkdir()
    records = read(dataset(tmp_path / "mixed", image=mixed, caption=["a", "b"]))
    assert [image.path for image in records.images] == [None, "1.png"]
    assert records.images[0].content == picture(0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state.json", "[]", r"state\.json: no JSON object; expected what `save_to_disk` wrote"),
        ("state.json", "{}", r"state\.json: no list `_data_files` of names"),
        ("state.json", '{"_data_files": [{"filename": "../x.arrow"}]}', r"no list `_data_files` of names"),
        ("state.json", '{"_data_files": [{"filename": "x.arrow"}]}', r"x\.arrow: cannot be read as an Arrow stream"),
        (
            "state.json",
            '{"_data_files": [{"filename": "x"}], "_indices_data_files": ["i"]}',
            r"an old file of indices.*save it again",
        ),
        ("data-00000-of-00001.arrow", "nothing", r"cannot be read as an Arrow stream"),
    ],
)
def test_spoilt_datasets(tmp_path, name, content, message):
    """The file is named; names cannot lead out of the folder."""
    home = dataset(tmp_path)
    (home / name).write_text(content)
    with pytest.raises(CorpusError, match=message):
        read(home)
