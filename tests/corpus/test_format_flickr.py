"""Flickr's token files and Flickr30k's results.csv, also as users left them."""

import pytest

from cprd_pipeline.errors import CorpusError
from tests.corpus.made_sources import read, results, tokens

HEADER = "image_name| comment_number| comment\n"


def save(folder, content):
    """A results file."""
    path = folder / "results.csv"
    path.write_bytes(content.encode())
    return path


def captions(records):
    """Ids and texts."""
    return [(caption.caption_id, caption.text) for caption in records.captions]


def test_token_lines(tmp_path):
    """Ids are those of the lines; windows line ends and empty lines are no part of captions, trailing spaces are."""
    path = tmp_path / "a.token"
    path.write_bytes(b"1.jpg.1#0\tA dog , running . \r\n\r\n1.jpg.1#1\tC# \xe2\x80\xa8code\r\n")
    records = read(path)
    assert captions(records) == [("1.jpg.1#0", "A dog , running . "), ("1.jpg.1#1", "C# \u2028code")]
    assert [image.path for image in records.images] == ["1.jpg.1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no tab here", r"line 13 is 'no tab here'; expected <image name>#<number><tab><caption>"),
        ("1.png\ta dog", r"line 13 is "),
        ("7.png#0\ta dog. 8.png#1\ta cat", r"line 13 holds two captions \('8\.png#1' stands inside\)"),
        ("0.png#1\tagain", r"line 13: caption id '0\.png#1' occurs more than once"),
        ("../7.png#0\ta dog", r"line 13: path '\.\./7\.png' leaves the image folder"),
    ],
)
def test_spoilt_token_lines(tmp_path, line, message):
    """The line is named."""
    path = tokens(tmp_path)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(CorpusError, match=rf"made\.token\.txt: {message}"):
        read(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (HEADER + "1.jpg| 0| A dog , running .\n", "A dog , running ."),
        ("image_name|comment_number|comment\r\n1.jpg|0|A dog .\r\n", "A dog ."),
        ("image_name,comment_number,comment\n1.jpg, 0, A dog , running\n", "A dog , running"),
        ('image_name,comment_number,comment\n1.jpg, 0," The ""white out"" , snow"\n', ' The "white out" , snow'),
        ('"image_name","comment_number","comment"\n"1.jpg","0","A dog"\n', "A dog"),
        ('"image_name"|"comment_number"|"comment"\n"1.jpg"|"0"|"A dog"\n', "A dog"),
        (HEADER + '1.jpg| 0| "STOP"\n', '"STOP"'),
        (HEADER + '1.jpg| 0| "STOP" says a sign .\n', '"STOP" says a sign .'),
        (HEADER + '1.jpg| 0| "a ""b"" | c"\n', 'a "b" | c'),
        (HEADER + "1.jpg| 0| A dog | a cat\n", "A dog | a cat"),
    ],
)
def test_results_as_users_left_them(tmp_path, content, expected):
    """Pipes, commas, quotes: always the one caption that was meant."""
    assert captions(read(save(tmp_path, content))) == [("1.jpg#0", expected)]


def test_the_row_without_its_separator(tmp_path):
    """Read, and noted."""
    records = read(save(tmp_path, HEADER + "1.jpg| 3| A cat .\n1.jpg| 4   A dog runs across the grass .\n"))
    assert captions(records)[1] == ("1.jpg#4", "A dog runs across the grass .")
    assert [note.split(": ", 1)[1] for note in records.notes] == [
        "line 3: no separator after the number 4, the rest is read as the caption"
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7.png| a dog", r"line 14 is '7\.png\| a dog'; expected image_name\| comment_number\| comment"),
        ("7.png| 0| a dog 8.png| 1| a cat", r"line 14 holds two captions \('8\.png\| 1\|' stands inside\)"),
        ("0.png| 1| again", r"line 14: caption id '0\.png#1' occurs more than once"),
        ('"7.png"| 0| "a dog', r"line 14: a quote is opened and not closed"),
    ],
)
def test_spoilt_results(tmp_path, line, message):
    """The line is named."""
    path = results(tmp_path)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(CorpusError, match=rf"results\.csv: {message}"):
        read(path)


def test_results_without_their_header(tmp_path):
    """Named as such when the format was named."""
    with pytest.raises(CorpusError, match=r"line 1 is '1\.jpg\| 0\| a'; expected the header image_name"):
        read(save(tmp_path, "1.jpg| 0| a\n"), "flickr30k_results")
