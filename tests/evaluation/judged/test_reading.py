"""Damaged files of judged sets are refused with their place."""

import pytest

from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.reading import number_between, read_object, read_table, read_text, text_of


def written(tmp_path, content):
    """A file of bytes."""
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


def table(path, delimiter="\t", header=False, quoted=False):
    """Read two columns."""
    return [row.cells for row in read_table(path, "a table", delimiter, ("a", "b"), header=header, quoted=quoted)]


def test_a_missing_file(tmp_path):
    """The message names it and the setting's fault."""
    with pytest.raises(CorpusError, match=r"absent.json: No such file or directory; expected a set; mend the path"):
        read_object(tmp_path / "absent.json", "a set")


def test_a_git_lfs_pointer(tmp_path):
    """Such as the one that stands for dataset_coco.json in many repositories."""
    path = written(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:af76\nsize 408860810\n")
    with pytest.raises(CorpusError, match=r"a Git LFS pointer; expected a set; fetch the file itself with `git lfs pull`"):
        read_object(path, "a set")


def test_bytes_that_are_no_text(tmp_path):
    """A block of 0xFF in the third line."""
    with pytest.raises(CorpusError, match="line 3: byte 0xff is not UTF-8; expected a set"):
        read_text(written(tmp_path, b"first\nsecond\nthird \xff\xff\nfourth\n"), "a set")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    """As some editors write it."""
    assert read_text(written(tmp_path, b"\xef\xbb\xbfcaption"), "a set") == "caption"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"1": [2', "not JSON at line 1, column 9"),
        (b"[1, 2]", "JSON that is no object but list"),
        (b"{}", "an empty JSON object"),
        (b"", "not JSON at line 1, column 1"),
        (b'{"1": [2], "1": [3]}', "key '1' occurs twice"),
        (b'{"1": {"caption": "a", "caption": "b"}}', "key 'caption' occurs twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"1": [' + b"9" * 5000 + b"]}", "a number of thousands of digits; expected a set; fetch the file again"),
    ],
)
def test_json_that_is_no_object(tmp_path, content, message):
    """Cut off, of another kind, empty, or with an entry that a plain reader would lose."""
    with pytest.raises(CorpusError, match=message):
        read_object(written(tmp_path, content), "a set")


def test_rows_of_a_table(tmp_path):
    """Line ends of both kinds; characters that only Python takes for line ends stay in their cell."""
    assert table(written(tmp_path, "1\ta\r\n\n2\tb\u2028c\n".encode())) == [["1", "a"], ["2", "b\u2028c"]]


def test_quoted_cells(tmp_path):
    """The delimiter and line ends within quotes belong to the cell."""
    assert table(written(tmp_path, b'a,b\n1,"x, ""y""\nz"\n'), ",", header=True, quoted=True) == [["1", 'x, "y"\nz']]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\n1\tx2\ty\n", "line 2: 3 columns; expected 2 \\(a, b\\) of a table"),
        (b"a\tb\n1\n", "line 2: 1 columns"),
        (b"b\ta\n1\tx\n", "begins with 'b\\\\ta'; expected the header"),
        (b"a\tb\n", "no rows"),
        (b"", "begins with 'nothing'"),
        (b'a\tb\n1\t"x\n', "line 2: unexpected end of data"),
    ],
)
def test_a_damaged_table(tmp_path, content, message):
    """Two rows in one line, half a row, swapped columns, nothing at all, a quote that never ends."""
    with pytest.raises(CorpusError, match=message):
        table(written(tmp_path, content), header=True, quoted=True)


@pytest.mark.parametrize("text", ["5.01", "-1", "nan", "", "three"])
def test_a_rating_that_is_none(text):
    """Out of range, not a number, or nothing."""
    with pytest.raises(CorpusError, match=r"row 7: .* expected a number from 0 to 5"):
        number_between(text, 0.0, 5.0, "row 7")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "is missing"),
        ([], "is missing"),
        ({"caption": 5}, "is '5'"),
        ({"caption": " "}, "is ' '"),
        ({"caption": "a \ud800"}, "holds half of a surrogate pair"),
    ],
)
def test_an_entry_without_text(entry, message):
    """Whatever is not a text with something in it."""
    with pytest.raises(CorpusError, match=f"entry '0': caption {message}"):
        text_of(entry, "caption", "entry '0'")
