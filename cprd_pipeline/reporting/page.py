"""The whole page put together: sections, style, scripts and the gallery's data in one file."""

import base64
import hashlib
from importlib.resources import files
from string import Template
from typing import Any

from cprd_pipeline.reporting.agreement import agreement
from cprd_pipeline.reporting.charts import curves, distributions
from cprd_pipeline.reporting.counters import counters
from cprd_pipeline.reporting.headline import headline
from cprd_pipeline.reporting.inputs import Inputs
from cprd_pipeline.reporting.judged import judged
from cprd_pipeline.reporting.markup import Section, element, join, json_script
from cprd_pipeline.reporting.movement import movement
from cprd_pipeline.reporting.origin import origin
from cprd_pipeline.reporting.results import results
from cprd_pipeline.reporting.stages import pipeline
from cprd_pipeline.reporting.verdicts import Verdicts

_STYLES = ("style.css", "charts.css", "gallery.css")
# In this order inside one function, so that they share names among themselves and none with the page.
_SCRIPTS = ("cards.js", "listing.js", "filters.js", "keyboard.js")


def page(inputs: Inputs, verdicts: Verdicts, data: dict[str, Any]) -> str:
    """The finished page.

    Args:
        inputs: Of the run.
        verdicts: On each query.
        data: Of the gallery.
    """
    corpus = inputs.corpus
    script = f'"use strict";\n(() => {{\n{_resources(_SCRIPTS)}}})();\n'
    sections = _sections(inputs, verdicts)
    return Template(_resources(("page.html",))).substitute(
        # Only this very script may run: markup that slipped through, if ever, stays dead.
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=_resources(_STYLES),
        script=script,
        subtitle=join(f"{inputs.split} split of a corpus of {len(corpus.images):,} images and {len(corpus.captions):,} captions"),
        navigation=join(*(element("a", part.title, href=f"#{part.anchor}") for part in sections)),
        content=join(headline(inputs), *(part.html() for part in sections)),
        data=json_script("gallery-data", data),
    )


def _sections(inputs: Inputs, verdicts: Verdicts) -> list[Section]:
    found = [results(inputs), movement(inputs, verdicts), *agreement(inputs), *judged(inputs.metrics, inputs.background)]
    if inputs.stages:
        found.append(pipeline(inputs.stages))
    found += [*counters(inputs.stages), distributions(inputs), *curves(inputs.logs)]
    return [*found, _gallery(inputs), origin(inputs)]


def _gallery(inputs: Inputs) -> Section:
    marks = [
        element("span", element("i", "✓", class_="mark positive"), "annotated as right"),
        element("span", element("i", "?", class_="mark above"), "the teacher scores it above every annotated one"),
        element("span", element("i", "▲3", class_="mark"), "three places higher than in the miner's order"),
    ]
    return Section(
        "Gallery",
        f"Queries of the split {inputs.split} with their candidates as {inputs.miner} found them, as the teacher and as "
        f"{inputs.student} order them. Each filter has its share of the queries, whatever it is worth in the whole split.",
        (element("p", *marks, class_="marks"), element("div", id="queries")),
    )


def _resources(names: tuple[str, ...]) -> str:
    folder = files("cprd_pipeline.reporting").joinpath("assets")
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
