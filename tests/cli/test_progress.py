"""Progress bars fit a line of 80 columns, whatever the numbers."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import cprd_pipeline.progress as progress


@given(st.floats(0, 9.99e11))
def test_compact_numbers_are_short_and_near(number: float) -> None:
    """At most five characters, within half a percent (below ten: 0.05)."""
    text = progress.compact(number)
    assert len(text) <= 5
    sizes = {"k": 1e3, "M": 1e6, "G": 1e9}
    value = float(text[:-1]) * sizes[text[-1]] if text[-1] in sizes else float(text.replace(",", ""))
    assert abs(value - number) <= max(0.0501 if number < 10 else 0.5, 0.006 * number)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (7, "7"), (2.34, "2.3"), (9999, "9,999"), (12_345, "12.3k"), (4_240_000, "4.24M")]
)
def test_compact_numbers_read_well(number: float, text: str) -> None:
    """Small ones as they are, large ones with a letter."""
    assert progress.compact(number) == text


def test_a_bar_is_one_line_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest note that a stage shows, with large numbers."""
    shown = io.StringIO()
    console = Console(file=shown, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    with progress.progress_bar("scoring", 123_456_789, "pairs", 98_765_432) as bar:
        bar.advance(1_000_000, "9,999 images/s, 100% waiting")
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue()).replace("\r", "\n").split("\n")
    lines = [line.rstrip() for line in lines if line.strip()]
    assert all(line.startswith("scoring ") and len(line) <= 80 for line in lines)
    assert "99.8M/123M" in lines[-1]
    assert lines[-1].endswith("9,999 images/s, 100% waiting")


def test_behind_a_pipe_a_bar_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without control characters, as often as was set; the final state comes by itself."""
    shown, now = io.StringIO(), [0.0]
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=shown, width=80))
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress_bar("steps", 100, "pairs") as bar:
        for _ in range(100):
            now[0] += 1.0
            bar.advance(1, "loss 1.2")
    lines = [line.rstrip() for line in shown.getvalue().split("\n") if line.strip()]
    assert "\x1b" not in shown.getvalue()
    assert [re.search(r"\d+/100", line).group() for line in lines] == ["61/100", "100/100"]  # type: ignore[union-attr]
    assert all(line.startswith("steps ") and line.endswith("loss 1.2") and len(line) <= 80 for line in lines)
