"""Hard negatives: accuracy by kind, the layouts of SugarCrepe, VALSE and NegCLIP, damaged files."""

import numpy as np
import pytest

from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.hard_negatives import HardNegatives, HardPair, evaluate_hard_negatives
from cprd_pipeline.evaluation.judged.negclip import read_negclip
from cprd_pipeline.evaluation.judged.sugarcrepe import KINDS, read_sugarcrepe
from cprd_pipeline.evaluation.judged.valse import read_valse
from tests.evaluation.judged.small_sets import corpus_of, student_of, write_json

VECTORS = {"right": [0.5, 0.5], "left": [0.6, 0.4], "up": [0.4, 0.6], "also right": [0.5, 0.5]}


def embed(texts):
    """Text vectors whose similarity to image 0 is their first number, to image 1 their second."""
    assert len(texts) == len(set(texts))
    return np.array([VECTORS[text] for text in texts], dtype=np.float32)


def evaluate(tmp_path, pairs, left_out=0, **limits):
    """Images 7 and 8 and the vectors above."""
    corpus, split = corpus_of(tmp_path / "corpus", {"7": ["71"], "8": ["81"]})
    judged = HardNegatives(tmp_path, tuple(HardPair(str(n), *pair) for n, pair in enumerate(pairs)), left_out)
    return evaluate_hard_negatives(judged, corpus, split, student_of(np.zeros((2, 2))), embed, **limits)


def test_accuracy_of_each_kind(tmp_path):
    """Strictly more similar is right; the mean is over kinds, however many pairs each has."""
    pairs = [
        ("swap", "000000000007.jpg", "right", "up"),
        ("swap", "000000000008.jpg", "right", "up"),
        ("swap", "000000000008.jpg", "right", "left"),
        ("add", "000000000007.jpg", "left", "up"),
    ]
    result = evaluate(tmp_path, pairs, left_out=3)
    assert result.figures == {"swap": pytest.approx(200 / 3), "add": 100.0, "mean": pytest.approx(500 / 6)}
    assert result.queries["pairs"].ids == ["swap/0", "swap/1", "swap/2", "add/3"]
    assert result.queries["pairs"].values["correct"].tolist() == [100.0, 0.0, 100.0, 100.0]
    assert result.counts == {"pairs": 4, "same_texts": 0, "pairs_unknown": 0, "unknown_images": 0, "left_out": 3}


def test_ties_count_against_the_model(tmp_path):
    """Equal vectors of different texts, and equal texts, which are counted."""
    pairs = [("add", "000000000007.jpg", "right", "also right"), ("add", "000000000008.jpg", "up", "up")]
    result = evaluate(tmp_path, pairs)
    assert result.figures == {"add": 0.0, "mean": 0.0}
    assert result.counts["same_texts"] == 1


def test_images_that_the_split_lacks(tmp_path):
    """Their pairs are left out, a kind without any other pair is not reported; past the limit the set is refused."""
    pairs = [("add", "000000000007.jpg", "left", "up"), ("swap", "v7w_8.jpg", "left", "up")]
    result = evaluate(tmp_path, pairs, unknown_limit=0.5)
    assert (result.figures, result.unknown) == ({"add": 100.0, "mean": 100.0}, ("v7w_8.jpg",))
    assert (result.counts["pairs_unknown"], result.counts["unknown_images"]) == (1, 1)
    with pytest.raises(CorpusError, match=r"1 of 2 ids are not in split 'test', the first 'v7w_8.jpg'"):
        evaluate(tmp_path / "again", pairs)


def sugarcrepe(folder, **changes):
    """The seven files with one entry each."""
    entry = {"filename": "000000085329.jpg", "caption": "A drawing.", "negative_caption": "A tattooed drawing."}
    for kind in KINDS:
        write_json(folder / f"{kind}.json", changes.get(kind, {"0": entry}))
    return folder


def test_sugarcrepe(tmp_path):
    """A pair of each kind, the kinds in the order in which they are reported."""
    judged = read_sugarcrepe(sugarcrepe(tmp_path / "sugarcrepe"))
    assert [pair.kind for pair in judged.pairs] == list(KINDS)
    assert judged.pairs[0] == HardPair("0", "add_att", "000000085329.jpg", "A drawing.", "A tattooed drawing.")
    assert judged.left_out == 0


def test_sugarcrepe_without_some_files(tmp_path):
    """All missing ones are named."""
    folder = sugarcrepe(tmp_path / "sugarcrepe")
    for kind in KINDS[:2]:
        (folder / f"{kind}.json").unlink()
    with pytest.raises(CorpusError, match=r"add_att.json, add_obj.json missing; expected SugarCrepe's 7 files"):
        read_sugarcrepe(folder)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"filename": "a.jpg", "caption": "a"}, "entry '0': negative_caption is missing; expected text"),
        ({"filename": 5, "caption": "a", "negative_caption": "b"}, "entry '0': filename is '5'"),
        ("a caption", "entry '0': filename is missing"),
    ],
)
def test_a_damaged_entry_of_sugarcrepe(tmp_path, entry, message):
    """The message names file and entry."""
    with pytest.raises(CorpusError, match=f"swap_obj.json: {message}"):
        read_sugarcrepe(sugarcrepe(tmp_path / "sugarcrepe", swap_obj={"0": entry}))


def valse_entry(votes, caption="There are no people."):
    """One entry with what is read of it and some that is not."""
    votes = {"foil": 3 - votes, "caption": votes, "other": 0}
    return {"dataset": "visual7w", "image_file": "v7w_1.jpg", "caption": caption, "foil": "There are people.", "mturk": votes}


def test_valse(tmp_path):
    """Each file is a kind; entries that people did not confirm are left out and counted."""
    write_json(tmp_path / "plurals.json", {"a": valse_entry(3), "b": valse_entry(1)})
    write_json(tmp_path / "existence.json", {"c": valse_entry(2)})
    judged = read_valse(tmp_path)
    assert [(pair.kind, pair.name) for pair in judged.pairs] == [("existence", "c"), ("plurals", "a")]
    assert judged.pairs[0] == HardPair("c", "existence", "v7w_1.jpg", "There are no people.", "There are people.")
    assert judged.left_out == 1


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a": {**valse_entry(3), "mturk": {}}}, "entry 'a': mturk.caption is 'None'; expected a number of votes"),
        ({"a": {**valse_entry(3), "mturk": {"caption": "3"}}}, "entry 'a': mturk.caption is '3'"),
        ({"a": ["caption"]}, "entry 'a': mturk.caption is 'None'"),
        ({"a": valse_entry(3, caption="")}, "entry 'a': caption is ''; expected text"),
        ({"a": valse_entry(0), "b": valse_entry(1)}, "none of its 2 entries has two votes for the caption"),
    ],
)
def test_a_damaged_file_of_valse(tmp_path, entries, message):
    """No votes, no text, or nothing that is valid."""
    write_json(tmp_path / "plurals.json", entries)
    with pytest.raises(CorpusError, match=f"plurals.json: {message}"):
        read_valse(tmp_path)


def test_valse_without_files(tmp_path):
    """An empty folder, or none."""
    with pytest.raises(CorpusError, match=r"no \*.json; expected VALSE's files"):
        read_valse(tmp_path / "absent")


NEGCLIP = "\ttitle\tfilepath\tneg_caption\tneg_image\n"


def negclip(tmp_path, row):
    """A file with one row."""
    path = tmp_path / "valid_neg_clip.tsv"
    path.write_text(NEGCLIP + row + "\n")
    return path


def test_negclip(tmp_path):
    """Each wrong caption of a row is a pair; quotes within are those of Python, quotes around those of the table."""
    row = '0\tA "red" umbrella.\tcoco/val2014/COCO_val2014_000000184613.jpg\t"[\'A child.\', ""A dog\'s child.""]"\t[2973, 1515]'
    judged = read_negclip(negclip(tmp_path, row.replace('A "red" umbrella.', '"A ""red"" umbrella."')))
    image = "coco/val2014/COCO_val2014_000000184613.jpg"
    assert judged.pairs == (
        HardPair("0.0", "swapped_words", image, 'A "red" umbrella.', "A child."),
        HardPair("0.1", "swapped_words", image, 'A "red" umbrella.', "A dog's child."),
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0\ta\tb.jpg\t[]\t[]", r"line 2: neg_caption '\[\]'; expected a list of quoted captions"),
        ("0\ta\tb.jpg\t['a', '']\t[]", "line 2: neg_caption"),
        ("0\ta\tb.jpg\t['a\t[]", "line 2: neg_caption"),
        ("0\ta\tb.jpg\t__import__('os').getcwd()\t[]", "line 2: neg_caption"),
        ("0\t\tb.jpg\t['a']\t[]", "line 2: title or filepath is empty"),
        ("0\ta\tb.jpg\t['a']", "line 2: 4 columns; expected 5"),
    ],
)
def test_a_damaged_row_of_negclip(tmp_path, row, message):
    """No list, an empty text, code instead of a literal, a cell too few."""
    with pytest.raises(CorpusError, match=message):
        read_negclip(negclip(tmp_path, row))
