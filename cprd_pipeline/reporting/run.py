"""Stage `report`: one self-contained HTML page made from the files of a run."""

import base64
import hashlib
from importlib.resources import files
from string import Template

from cprd_pipeline.reporting.gallery import gallery
from cprd_pipeline.reporting.inputs import Inputs, read_inputs
from cprd_pipeline.reporting.markup import element, join, json_script
from cprd_pipeline.reporting.sections import curves, distributions, headline, pipeline, results, section
from cprd_pipeline.reporting.settings import ReportSettings
from cprd_pipeline.store.atomic import write_bytes
from cprd_pipeline.store.report import StageReport, Stopwatch


def run(settings: ReportSettings) -> StageReport:
    """Write the page; it needs no network, no server and no other file."""
    watch = Stopwatch()
    with watch.measure("reading"):
        inputs = read_inputs(settings)
    with watch.measure("gallery"):
        data = gallery(inputs, settings.gallery)
    with watch.measure("writing"):
        page = _page(inputs, data).encode()
        write_bytes(settings.output, page)
    counts = {"queries": len(data["queries"]), "images": len(data["images"]), "bytes": len(page)}
    table = [
        ("page", f"{settings.output} ({len(page) / 1e6:.1f} MB)"),
        ("gallery", f"{counts['queries']:,} queries, {counts['images']:,} pictures"),
    ]
    return StageReport("report", settings.as_json(), counts, table, watch.seconds).save(settings.report)


def _page(inputs: Inputs, data: dict[str, object]) -> str:
    script = _resource("page.js")
    above = [headline(inputs), results(inputs)]
    above += [pipeline(inputs.stages)] * bool(inputs.stages)
    above += [distributions(inputs)]
    above += [curves(inputs.logs)] * bool(inputs.logs)
    below = section(
        "Gallery",
        f"Queries drawn from the split {inputs.split} with their candidates as {inputs.miner} found them, as the teacher and as "
        f"{inputs.student} order them. Annotated positives are marked; arrows count places against the miner's order.",
        element("div", id="gallery"),
    )
    return Template(_resource("page.html")).substitute(
        # Only this very script may run: markup that slipped through, if ever, stays dead.
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=_resource("page.css"),
        script=script,
        subtitle=join(f"a corpus of {len(inputs.corpus.images):,} images and {len(inputs.corpus.captions):,} captions"),
        content=join(*above, below),
        data=json_script("gallery-data", data),
    )


def _resource(name: str) -> str:
    return files("cprd_pipeline.reporting").joinpath(name).read_text(encoding="utf-8")
