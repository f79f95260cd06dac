"""The page of a study: results and the plots of the paper's three findings, made from the report of `study`."""

from importlib.resources import files
from pathlib import Path
from statistics import mean
from string import Template
from typing import Any

from cprd_pipeline.errors import StoreError
from cprd_pipeline.reporting.bars import Bar, bars
from cprd_pipeline.reporting.markup import Section, element, join
from cprd_pipeline.reporting.study_plots import agreement_by_rank, distributions, gradients
from cprd_pipeline.reporting.tables import MISSING, row, table
from cprd_pipeline.store.atomic import write_bytes
from cprd_pipeline.store.report import read_report

_STYLES = ("style.css", "charts.css", "study.css")
_MOST_RSUM = 600.0


def write_study_page(report: Path, page: Path) -> None:
    """Draw the report of a study as one self-contained HTML page.

    Args:
        report: As `study` wrote it.
        page: Where the page goes.

    Raises:
        StoreError: The report is missing or of another command.
    """
    found = read_report(report)
    if found.stage != "study":
        raise StoreError(f"{report}: the report of {found.stage}", expected="that of study", do="run `cprd-pipeline study`")
    write_bytes(page, study_page(found.results).encode())


def study_page(results: dict[str, Any]) -> str:
    """The finished page.

    Args:
        results: Of the report of `study`.
    """
    sections = [_results(results), _findings(results), distributions(results), agreement_by_rank(results), *gradients(results)]
    assets = files("cprd_pipeline.reporting").joinpath("assets")
    template = assets.joinpath("study.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        style="".join(assets.joinpath(name).read_text(encoding="utf-8") for name in _STYLES),
        subtitle=join(f"{len(results['arms'])} arms, seeds {', '.join(map(str, results['seeds']))}, {results['split']} split"),
        navigation=join(*(element("a", part.title, href=f"#{part.anchor}") for part in sections)),
        content=join(*(part.html() for part in sections)),
    )


def _results(results: dict[str, Any]) -> Section:
    arms, reference = results["arms"], results["reference"]
    first = next(one["label"] for one in arms if one["name"] == reference)
    against = {one["more"]: one for one in results["comparisons"] if one["less"] == reference and one["by"] == "rsum"}
    shown = [Bar(one["label"], "student", mean(one["rsum"]), (min(one["rsum"]), max(one["rsum"]))) for one in arms]
    lines = [row(one["label"], "", _cells(one, against.get(one["name"])), "") for one in arms]
    if teacher := results["teacher"]:
        shown.append(Bar(teacher["label"], "positive", teacher["rsum"], None))
        empty = [MISSING] * (len(results["seeds"]) + 3)
        lines.append(row(teacher["label"], "", [f"{teacher['rsum']:.1f}", *empty, _ndcg(teacher)], ""))
    titles = ["", "mean RSUM", *(f"seed {seed}" for seed in results["seeds"])]
    titles += [f"from {first}", "95 % over seeds", "95 % over images", f"{results['ndcg']} i→t / t→i"]
    return Section(
        "Results",
        f"RSUM of the {results['split']} split. All arms share data, initial weights, batches and steps. Lines across the bars: "
        "the lowest and the highest seed. Differences are paired by seed; bold: beyond chance (t test over seeds, Holm's rule).",
        (bars("RSUM, mean over seeds", shown, _MOST_RSUM), table(titles, lines, "results arms")),
    )


def _cells(arm: dict[str, Any], against: dict[str, Any] | None) -> list[str]:
    cells = [f"{mean(arm['rsum']):.1f}", *(f"{value:.1f}" for value in arm["rsum"])]
    if against is None:
        return [*cells, MISSING, MISSING, MISSING, _ndcg(arm)]
    change = _signed(against["difference"], 1)
    bold = element("td", element("strong", change)) if against["p"] <= 0.05 else change
    return [*cells, bold, _between(against["low"], against["high"]), _between(*against["images"]), _ndcg(arm)]


def _ndcg(figures: dict[str, Any]) -> str:
    return " / ".join(f"{value:.1f}" for value in figures["ndcg"])


def _between(low: float, high: float) -> str:
    return f"{_signed(low, 1)} to {_signed(high, 1)}"


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _findings(results: dict[str, Any]) -> Section:
    lines = [row(one["text"], one["numbers"], [one["verdict"]], "") for one in results["findings"]]
    explanation = "What the paper found, and whether it shows on this data and at this scale."
    return Section("Findings", explanation, (table(["", ""], lines, "findings"),))
