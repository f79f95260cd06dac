"""Caption texts: refused, normalised, measured."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.corpus.captions import clean_captions, measure_lengths, normalise_text, refuse_text
from cprd_pipeline.corpus.formats.records import CaptionRecord
from cprd_pipeline.corpus.settings import CaptionSettings


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \t\r\n\u00a0\u3000", "nothing but white space or invisible characters"),
        ("\u200b\u200f\ufeff", "nothing but white space or invisible characters"),
        ("a\x00dog", r"control character U+0000 at place 2"),
        ("a dog\x1b[0m", r"control character U+001B at place 6"),
        ("caf\x82", r"control character U+0082 at place 4"),
        ("a \ud800", "half of a surrogate pair"),
    ],
)
def test_texts_that_are_refused(text, reason):
    """Each with its reason."""
    assert refuse_text(text) == reason


@pytest.mark.parametrize("text", ["A dog .\n", "a\tdog", "\u200fكلب\u200e", "犬", "🐕", "…", "a\u2028b", "a\u0085b", "עִבְרִית"])
def test_texts_that_are_not(text):
    """White space of all kinds, marks of direction, any script, a lone emoji."""
    assert refuse_text(text) == ""


@settings(deadline=None)
@given(st.text())
def test_untouched_by_default(text):
    """The very same text, or refused; what is not refused can be written as UTF-8."""
    good, bad = clean_captions([CaptionRecord("c", text, ("i",))], CaptionSettings())
    assert [caption.text for caption in good] + [caption.caption.text for caption in bad] == [text]
    assert all(caption.text.encode() and caption.text.strip() for caption in good)


@pytest.mark.parametrize(
    ("values", "text", "expected"),
    [
        ({"normalise": "NFC"}, "cafe\u0301", "café"),
        ({"normalise": "NFD"}, "café", "cafe\u0301"),
        ({"normalise": "NFKC"}, "ﬁ①", "fi1"),
        ({"lower_case": True}, "A DOG, ÜBER", "a dog, über"),
        ({"strip_punctuation": True}, "A dog's ball , red . ¿qué? 犬。", "A dog s ball red qué 犬"),
        ({"normalise": "NFC", "lower_case": True, "strip_punctuation": True}, "E\u0301!", "é"),
        ({}, "E\u0301! ", "E\u0301! "),
    ],
)
def test_normalisation_by_setting(values, text, expected):
    """Only what was asked for."""
    assert normalise_text(text, CaptionSettings(**values)) == expected


def test_nfc_would_change_what_it_must_not():
    """Why it is not the default: CJK compatibility ideographs become others."""
    assert unicodedata.normalize("NFC", "\uf900") != "\uf900"
    good, _ = clean_captions([CaptionRecord("c", "\uf900", ())], CaptionSettings())
    assert good[0].text == "\uf900"


def test_a_caption_of_punctuation_alone():
    """Is empty once that is gone; records that do not change stay the same objects."""
    records = [CaptionRecord("a", "...", ("i",)), CaptionRecord("b", "a dog", ("i",))]
    good, bad = clean_captions(records, CaptionSettings(strip_punctuation=True))
    assert [(one.caption.caption_id, one.reason) for one in bad] == [("a", "empty once its punctuation is gone")]
    assert good == [records[1]]


def test_lengths():
    """In characters, not bytes."""
    assert measure_lengths([]) == {}
    lengths = measure_lengths(["犬"] + ["ab"] * 18 + ["x" * 50])
    assert lengths == {"shortest": 1, "median": 2, "p95": 2, "longest": 50, "mean": 4.35}
