"""The study on the terminal."""

from collections.abc import Sequence
from typing import Any

from cprd_pipeline.evaluation.study.comparison import ALPHA, Comparison
from cprd_pipeline.evaluation.study.settings import StudySettings
from cprd_pipeline.evaluation.study.text import p_value, spread


def study_rows(settings: StudySettings, results: dict[str, Any], comparisons: Sequence[Comparison]) -> list[tuple[str, str]]:
    """An arm a line, then what came out about the findings."""
    rows = [(f"RSUM on {results['split']}", f"{'mean ± sd':>12}{'change':>9}  {'95 % over seeds':<17}{'p':>7}")]
    against = {one.more: one for one in comparisons if one.less == settings.reference and one.by == "rsum"}
    for one in results["arms"]:
        text = f"{spread(one['rsum'], 1):>12}"
        if one["name"] in against:
            text += _against(against[one["name"]])
        rows.append((one["label"], text))
    if results["teacher"]:
        rows.append((results["teacher"]["label"], f"{results['teacher']['rsum']:>7.1f}"))
    rows += [(one["verdict"], one["text"]) for one in results["findings"]]
    rows.append(("p and bold", f"t test by seed, Holm over {len(comparisons)} comparisons; bold up to {ALPHA}"))
    rows.append(("written", f"{settings.markdown}, {settings.page}"))
    return rows


def _against(one: Comparison) -> str:
    change = f"{one.difference:+.1f}"
    padding = " " * (9 - len(change))
    interval = f"[{one.low:+.1f}, {one.high:+.1f}]"
    return f"{padding}{f'**{change}**' if one.clear else change}  {interval:<17}{p_value(one.p):>7}"
