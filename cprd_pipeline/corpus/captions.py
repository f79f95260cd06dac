"""Caption texts: normalised where the settings say so, refused where no model could read them, measured for the report."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from cprd_pipeline.corpus.formats.records import CaptionRecord
from cprd_pipeline.corpus.settings import CaptionSettings

# Line breaks and tabs are white space: COCO has dozens of captions that end in one. C1 controls are what Windows text looks like
# when it was read as Latin-1. Marks of direction (right-to-left) are no controls in this sense.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_VISIBLE = re.compile(r"\w")


class BadCaption(NamedTuple):
    """A caption that cannot be used, and why."""

    caption: CaptionRecord
    reason: str


def clean_captions(captions: Sequence[CaptionRecord], settings: CaptionSettings) -> tuple[list[CaptionRecord], list[BadCaption]]:
    """Captions with their texts normalised, and those that cannot be used.

    Args:
        captions: As the source yielded them.
        settings: What is done to texts; by default nothing.

    Returns:
        The good ones in their order, and the bad ones in theirs.
    """
    good, bad = [], []
    unchanged = settings == CaptionSettings()
    for caption in captions:
        reason = refuse_text(caption.text)
        text = caption.text if unchanged or reason else normalise_text(caption.text, settings)
        reason = reason or ("empty once its punctuation is gone" if _is_empty(text) else "")
        if reason:
            bad.append(BadCaption(caption, reason))
        else:
            good.append(caption if text is caption.text else replace(caption, text=text))
    return good, bad


def refuse_text(text: str) -> str:
    """Why a text is no caption; empty for a good one."""
    if _is_empty(text):
        return "empty" if not text else "nothing but white space or invisible characters"
    control = _CONTROL.search(text)
    if control:
        return f"control character U+{ord(control[0]):04X} at place {control.start() + 1}"
    if not text.isascii() and _SURROGATE.search(text):
        return "half of a surrogate pair"
    return ""


def normalise_text(text: str, settings: CaptionSettings) -> str:
    """The text in the normal form, case and punctuation that the settings ask for."""
    if settings.normalise is not None:
        text = unicodedata.normalize(settings.normalise, text)
    if settings.lower_case:
        text = text.lower()
    if settings.strip_punctuation:
        text = " ".join("".join(" " if unicodedata.category(letter)[0] == "P" else letter for letter in text).split())
    return text


def measure_lengths(texts: Iterable[str]) -> dict[str, Any]:
    """Lengths in characters: shortest, median, 95th percentile, longest, mean; empty for no text."""
    lengths = np.fromiter((len(text) for text in texts), dtype=np.int64)
    if not len(lengths):
        return {}
    median, high = np.percentile(lengths, [50, 95], method="lower")
    return {
        "shortest": int(lengths.min()),
        "median": int(median),
        "p95": int(high),
        "longest": int(lengths.max()),
        "mean": round(float(lengths.mean()), 2),
    }


def _is_empty(text: str) -> bool:
    # The first test settles nearly all texts; emoji and lone symbols need the second.
    return not _VISIBLE.search(text) and all(letter.isspace() or unicodedata.category(letter) == "Cf" for letter in text)
