"""Charts, markup, thumbnails and times, each by itself."""

import base64
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cprd_pipeline.reporting.durations import duration
from cprd_pipeline.reporting.markup import Html, element, join, json_script
from cprd_pipeline.reporting.plots import histogram, ticks
from cprd_pipeline.reporting.thumbnails import data_uri

COLOURS = {"positives": "positive", "candidates": "candidate"}


def test_markup_escapes_text_and_attributes():
    """Only `Html` goes in as it is."""
    inner = element("b", "<i>")
    assert inner == "<b>&lt;i&gt;</b>"
    assert element("p", inner, "&", class_='"x"') == '<p class="&quot;x&quot;"><b>&lt;i&gt;</b>&amp;</p>'
    assert join("<", Html("<br>")) == "&lt;<br>"


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_json_in_the_page_cannot_end_its_element(value):
    """No angle bracket is left, whatever the value, and it reads back as it was."""
    script = json_script("x", value)
    body = script.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")
    assert not set(body) & set("<>&")
    assert json.loads(body) == value


def test_histogram_areas_are_shares_of_their_own_group():
    """The heights of each step line sum to one, whatever the groups' sizes."""
    random = np.random.default_rng(0)
    groups = {"positives": random.normal(2, 1, 100), "candidates": random.normal(0, 1, 5000)}
    svg = histogram("teacher", "score", groups, COLOURS)
    labels = {float(y): float(text[:-2]) / 100 for y, text in re.findall(r'y="([\d.]+)" class="y">([^<]* %)<', svg)}
    (y_zero, y_high) = (next(y for y, share in labels.items() if share == value) for value in (0, max(labels.values())))
    unit = (y_zero - y_high) / max(labels.values())
    for points in re.findall(r'<polyline points="([^"]*)"', svg):
        heights = [(y_zero - float(point.split(",")[1])) / unit for point in points.split()]
        assert sum(heights[1:-1:2]) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("groups", [{}, {"positives": np.array([])}, {"positives": np.array([1.0]), "candidates": np.array([])}])
def test_histogram_of_little_or_nothing(groups):
    """Empty groups and single values are drawn or said, without a warning."""
    figure = histogram("teacher", "score", groups, COLOURS)
    assert ("nothing to show" in figure) == (not any(len(values) for values in groups.values()))


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_are_round_inside_and_few(low, width, about):
    """Evenly spaced multiples of 1, 2, 2.5 or 5 times a power of ten."""
    found = ticks(low, low + width, about)
    assert len(found) <= about + 1
    assert all(low - 1e-6 * width - 1e-9 <= tick <= low + width * (1 + 1e-6) + 1e-9 for tick in found)
    if len(found) > 2:
        steps = np.diff(found)
        assert steps == pytest.approx(np.full(len(steps), steps[0]), rel=1e-3)
        leading = float(f"{steps[0]:e}".split("e")[0])
        assert min(abs(leading - round_number) for round_number in (1, 2, 2.5, 5, 10)) < 1e-2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200.0, "3 min 20 s"),
        (7500.0, "2 h 5 min"),
    ],
)
def test_durations(seconds, text):
    """As people say them."""
    assert duration(seconds) == text


@pytest.mark.parametrize(("size", "expected"), [((200, 100), (64, 32)), ((30, 20), (30, 20))])
def test_thumbnails_shrink_and_never_grow(size, expected):
    """The longest side fits; the picture can be opened and looks like the original."""
    picture = Image.new("RGB", size, (200, 30, 60))
    content = data_uri(picture, 64).removeprefix("data:image/webp;base64,")
    small = Image.open(io.BytesIO(base64.b64decode(content)))
    assert small.size == expected
    assert small.format == "WEBP"
    assert np.abs(np.asarray(small.convert("RGB"), dtype=int) - (200, 30, 60)).max() <= 4
    assert picture.size == size
