"""The command `compare`: models side by side on the same queries, each against the first, with what chance may have done."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cprd_pipeline.errors import SettingsError, StoreError
from cprd_pipeline.evaluation.outcomes import Outcome, outcome_of
from cprd_pipeline.evaluation.reality import Difference, Protocol, compare
from cprd_pipeline.evaluation.summary import summarise
from cprd_pipeline.metrics.averages import Spread, spread_over_seeds
from cprd_pipeline.metrics.significance import holm
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.report import StageReport
from cprd_pipeline.store.schemas import EVALUATED_QUERIES, check_schema

FIGURES = (
    "rsum",
    *(f"{direction}_{name}" for direction in ("i2t", "t2i") for name in ("r1", "r5", "r10", "map_r", "binary_ndcg10", "mrr")),
)
_ALPHA = 0.05
_TITLES = {"rsum": "RSUM", "r1": "R@1", "r5": "R@5", "r10": "R@10", "map_r": "MAP@R", "binary_ndcg10": "nDCG@10", "mrr": "MRR"}


@dataclass(frozen=True)
class Source:
    """What was evaluated on: the corpus by its digest, and the split."""

    corpus: str
    split: str

    def __str__(self) -> str:
        return f"split {self.split!r} of corpus {self.corpus[:8]}"


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Args:
        label: What it is called.
        source: Where its queries are from.
        outcome: Of the model, or the mean over several seeds, query by query.
        spreads: Mean and standard deviation of each figure over the seeds.
    """

    label: str
    source: Source
    outcome: Outcome
    spreads: dict[str, Spread]


def compare_models(names: Sequence[str], evaluation: Path, protocol: Protocol) -> StageReport:
    """Every model against the first one.

    Args:
        names: At least two of MODEL, FOLDER:MODEL, or LABEL=MODEL,MODEL,... for one arm over several seeds.
        evaluation: Output folder of `evaluate` for models that name none.
        protocol: How intervals and tests are made.

    Raises:
        SettingsError: Fewer than two models, or one twice.
        StoreError: A model was not evaluated, or on another corpus or split.
    """
    arms = [_arm(name, evaluation) for name in names]
    labels = [arm.label for arm in arms]
    if len(arms) < 2 or len(set(labels)) < len(labels):
        raise SettingsError(f"{', '.join(labels) or 'no model'} to compare", expected="two different models or more")
    first, *others = arms
    for arm in others:
        _check_same_queries(first, arm)
    tests = {arm.label: compare(first.outcome, arm.outcome, protocol, FIGURES) for arm in others}
    p_values = holm(np.array([one.p for found in tests.values() for one in found]))
    table: list[tuple[str, str]] = []
    results: dict[str, Any] = {"reference": first.label, "comparisons": {}, "seeds": _seeds(arms)}
    corrected = iter(p_values.tolist())
    for arm in others:
        rows = [(one, next(corrected)) for one in tests[arm.label]]
        results["comparisons"][arm.label] = {one.figure: _as_json(one, p) for one, p in rows}
        table.append((f"{first.label} / {arm.label}", f"{'first':>8}{'second':>8}{'change':>9}   {'95 % interval':<18}{'p':>6}"))
        table += [(_title(one.figure), _line(one, p)) for one, p in rows]
    table += _seed_rows(arms)
    table.append(("p", f"{protocol.replicates:,} paired swaps by image, Holm over {len(p_values)} tests; bold below {_ALPHA}"))
    settings = {"models": list(names), "evaluation": str(evaluation), "replicates": protocol.replicates, "seed": protocol.seed}
    return StageReport("compare", settings, results, table)


def _arm(name: str, evaluation: Path) -> Arm:
    label, equals, references = name.partition("=")
    first, *others = seeds = [_read(reference, evaluation) for reference in (references if equals else name).split(",")]
    for other in others:
        _check_same_queries(first, other)
    outcomes = [seed.outcome for seed in seeds]
    return Arm(label, first.source, _mean(label, outcomes), spread_over_seeds([summarise(outcome) for outcome in outcomes]))


def _read(reference: str, evaluation: Path) -> Arm:
    folder_name, colon, model = reference.rpartition(":")
    folder = InputFolder(Path(folder_name) if colon else evaluation, "evaluation")
    part = f"queries-{model}.parquet"
    known = [name.removeprefix("queries-").removesuffix(".parquet") for name in folder.part_names("queries-")]
    if model not in known:
        raise StoreError(f"{folder.path}: no model {model!r} in it", expected=f"one of {', '.join(known)}")
    source = Source(folder.manifest.inputs["corpus"], folder.manifest.settings["split"])
    return Arm(reference, source, outcome_of(check_schema(folder.table(part), EVALUATED_QUERIES, str(folder.path / part))), {})


def _mean(label: str, outcomes: Sequence[Outcome]) -> Outcome:
    """Values of each query averaged over the seeds."""
    directions = []
    for versions in zip(*(outcome.directions for outcome in outcomes), strict=True):
        values = {name: np.mean([one.values[name] for one in versions], axis=0) for name in versions[0].values}
        directions.append(replace(versions[0], values=values))
    return Outcome(label, (directions[0], directions[1]))


def _check_same_queries(left: Arm, right: Arm) -> None:
    """Another corpus may have queries of the same names."""
    asked = [[(one.query_ids, set(one.values)) for one in arm.outcome.directions] for arm in (left, right)]
    if left.source != right.source or asked[0] != asked[1]:
        raise StoreError(
            f"{left.label} answered {_told(left)}, {right.label} {_told(right)}",
            expected="results of the same split of the same corpus",
            do="evaluate both models on one split",
        )


def _told(arm: Arm) -> str:
    return f"{' and '.join(f'{len(one.query_ids)} {one.direction}' for one in arm.outcome.directions)} queries of {arm.source}"


def _seeds(arms: Sequence[Arm]) -> dict[str, Any]:
    return {
        arm.label: {name: [one.mean, one.deviation, one.seeds] for name, one in arm.spreads.items()}
        for arm in arms
        if next(iter(arm.spreads.values())).seeds > 1
    }


def _seed_rows(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    rows = []
    for arm in arms:
        spread = arm.spreads["rsum"]
        if spread.deviation is not None:
            text = f"RSUM {spread.mean:.1f}, standard deviation {spread.deviation:.1f}"
            rows.append((f"{arm.label} over {spread.seeds} seeds", text))
    return rows


def _as_json(one: Difference, p: float) -> dict[str, float]:
    bounds = {"low": one.interval.low, "high": one.interval.high}
    return {"first": one.left, "second": one.right, "difference": one.interval.estimate, **bounds, "p": one.p, "p_holm": p}


def _title(figure: str) -> str:
    if figure in _TITLES:
        return _TITLES[figure]
    direction, _, name = figure.partition("_")
    return f"{direction} {_TITLES[name]}"


def _line(one: Difference, p: float) -> str:
    fine = ".3f" if one.figure.endswith("mrr") else ".1f"
    # z: what rounds to zero has no minus.
    interval = f"[{one.interval.low:+z{fine}}, {one.interval.high:+z{fine}}]"
    change = f"{one.interval.estimate:+z{fine}}"
    padding = " " * (9 - len(change))
    change = f"{padding}**{change}**" if p <= _ALPHA else f"{padding}{change}"
    return f"{one.left:>8{fine}}{one.right:>8{fine}}{change}   {interval:<18}{p:>6.3f}"
