"""Stage `report`: one self-contained HTML page made from the files of a run."""

from cprd_pipeline.reporting.gallery import gallery
from cprd_pipeline.reporting.inputs import read_inputs
from cprd_pipeline.reporting.lists import lists_of
from cprd_pipeline.reporting.page import page
from cprd_pipeline.reporting.settings import ReportSettings
from cprd_pipeline.reporting.verdicts import verdicts_of
from cprd_pipeline.store.atomic import write_bytes
from cprd_pipeline.store.report import StageReport, Stopwatch


def run(settings: ReportSettings) -> StageReport:
    """Write the page; it needs no network, no server and no other file."""
    watch = Stopwatch()
    with watch.measure("reading"):
        inputs = read_inputs(settings)
    with watch.measure("gallery"):
        lists = lists_of(inputs.rankings, inputs.student_lists)
        verdicts = verdicts_of(inputs, lists)
        data = gallery(inputs, lists, verdicts, settings.gallery)
    with watch.measure("writing"):
        content = page(inputs, verdicts, data).encode()
        write_bytes(settings.output, content)
    counts = {"queries": len(data["queries"]), "images": len(data["images"]), "bytes": len(content)}
    table = [
        ("page", f"{settings.output} ({len(content) / 1e6:.1f} MB)"),
        ("gallery", f"{counts['queries']:,} queries, {counts['images']:,} pictures"),
    ]
    return StageReport("report", settings.as_json(), counts, table, watch.seconds).save(settings.report)
