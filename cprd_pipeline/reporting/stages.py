"""The pipeline: its picture, and a card with counts, times, settings and versions of each stage."""

import json

from cprd_pipeline.reporting.durations import duration
from cprd_pipeline.reporting.flow import Stages, flow, seconds_of
from cprd_pipeline.reporting.markup import Html, Section, element
from cprd_pipeline.store.report import StageReport


def pipeline(stages: Stages) -> Section:
    """The stages in their order with counts and times."""
    total = sum(seconds_of(report) for _, report in stages)
    cards = [_card(number, name, report) for number, (name, report) in enumerate(stages, start=1)]
    details = element(
        "details",
        element("summary", "Counts, settings and versions of each stage"),
        element("ol", *cards, class_="cards"),
        class_="fold",
    )
    return Section(
        "Pipeline",
        f"{len(stages)} stages, {duration(total)} in all. An arrow: the one reads what the other wrote. The line in a box: its "
        "share of the time.",
        (flow(stages), details),
    )


def _card(number: int, name: str, report: StageReport) -> Html:
    # The figures of evaluate are the table of results; here they would only be in the way.
    rows = [] if report.stage == "evaluate" else report.table
    counts = element("dl", *(element("div", element("dt", what), element("dd", value)) for what, value in rows))
    parts = ", ".join(f"{part} {duration(seconds)}" for part, seconds in report.seconds.items())
    done_before = " (nothing to do: the output was there)" if report.up_to_date else ""
    facts = json.dumps({"settings": report.settings, "machine": report.machine}, indent=2, ensure_ascii=False)
    details = element("details", element("summary", "settings and versions"), element("pre", facts, tabindex="0"))
    heading = element("h3", name.replace("_", " "), element("span", duration(seconds_of(report))))
    return element("li", heading, element("p", f"{parts}{done_before}", class_="muted"), counts, details, id=f"stage-{number}")
