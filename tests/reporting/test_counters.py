"""Tables of what was counted."""

from cprd_pipeline.reporting.counters import counters
from cprd_pipeline.store.report import StageReport


def test_filters_that_took_something_have_a_column():
    """Others have none; hubs and merged rounds are shown; reports without filters have no such table."""
    found = {
        "queries": 7,
        "candidates": 40,
        "merged": 3,
        "dropped_by_filter": {"same_text": 5, "max_similarity": 0},
        "hubs": {"max": 6, "never": 0.25},
    }
    report = StageReport("mine", {}, {"directions": {"i2t": found}}, [])
    [section] = counters([("mine", report)])
    text = section.html()
    for wanted in ("dropped: same text", "<td>5</td>", "added by earlier rounds", "<td>3</td>", "25.0%"):
        assert wanted in text
    assert "max similarity" not in text
    plain = StageReport("mine", {}, {"directions": {"i2t": {"queries": 7}}}, [])
    assert "Filters, rounds and hubs" not in counters([("mine", plain)])[0].html()
