"""What was run: fingerprints of everything that went in, and the versions that did it."""

from typing import Any

from cprd_pipeline.reporting.flow import Stages
from cprd_pipeline.reporting.inputs import Inputs
from cprd_pipeline.reporting.markup import Html, Section, element


def origin(inputs: Inputs) -> Section:
    """Two lists; a version that differs between stages is shown with each of its values."""
    prints = _pairs({name: element("code", digest) for name, digest in inputs.fingerprints.items()})
    columns = [element("div", element("h3", "Fingerprints"), prints)]
    if inputs.stages:
        columns.append(element("div", element("h3", "Versions and machine"), _pairs(_machines(inputs.stages))))
    return Section(
        "Origin",
        "A fingerprint names a content, whatever it is called and wherever it lies: equal inputs, settings and versions on "
        "the same kind of machine give the same ones.",
        (element("div", *columns, class_="origin"),),
    )


def _pairs(facts: dict[str, str]) -> Html:
    return element("dl", *(element("div", element("dt", what), element("dd", value)) for what, value in facts.items()))


def _machines(stages: Stages) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for _, report in stages:
        for name, value in _flat(report.machine).items():
            found.setdefault(name, set()).add(str(value))
        for name in ("device", "dtype"):
            if name in report.results:
                found.setdefault(name, set()).add(str(report.results[name]))
    return {name: ", ".join(sorted(values)) for name, values in found.items()}


def _flat(machine: dict[str, Any]) -> dict[str, Any]:
    libraries: dict[str, Any] = machine.get("libraries", {})
    return {name: value for name, value in machine.items() if name != "libraries"} | libraries
