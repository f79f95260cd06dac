"""What `score-teacher` tells when it is done: the plan, the price, and what the rankings look like."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from cprd_pipeline.scoring.errands import Errand
from cprd_pipeline.scoring.purchase import Purchase, Shop
from cprd_pipeline.scoring.summary import summarise
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.report import StageReport, save_series

Rows = list[tuple[str, str]]


def report_on_rankings(shop: Shop, errands: Sequence[Errand], purchase: Purchase, candidates: InputFolder) -> StageReport:
    """The report of a run that wrote rankings.

    Args:
        shop: Of the run.
        errands: What was planned.
        purchase: What was scored.
        candidates: What the rankings were made from.
    """
    settings = shop.settings
    results, table = _price(shop, errands, purchase)
    figures = summarise(InputFolder(settings.output, "rankings"), candidates, settings.false_negative_margin)
    for direction, found in figures["directions"].items():
        table += _direction_rows(direction, found)
    table.append(("rankings", str(settings.output)))
    save_series(settings.report, "scores", _histogram_columns(figures["histogram"]))
    return StageReport("score-teacher", settings.as_json(), {**results, **figures}, table, dict(shop.watch.seconds))


def report_on_shard(shop: Shop, errands: Sequence[Errand], purchase: Purchase) -> StageReport:
    """The report of a run that scored one shard, saved beside where the whole run's will be."""
    settings, share = shop.settings, shop.settings.share
    results, table = _price(shop, errands, purchase)
    table.append(("next", "when all shards are done, the same command without `shard` writes the rankings"))
    report = StageReport("score-teacher", settings.as_json(), results, table, dict(shop.watch.seconds))
    path = settings.report
    return report.save(path.with_name(f"{path.stem}.shard-{share.index}-of-{share.count}{path.suffix}"))


def _price(shop: Shop, errands: Sequence[Errand], purchase: Purchase) -> tuple[dict[str, Any], Rows]:
    plans = [errand.plan for errand in errands]
    requested, duplicate, stored, elsewhere = (
        sum(getattr(plan, name) for plan in plans) for name in ("requested", "duplicate", "stored", "elsewhere")
    )
    seconds = shop.watch.seconds.get("scoring")
    rate = round(purchase.scored / seconds, 2) if seconds else None
    table = [
        ("requested pairs", f"{requested:,}"),
        ("named twice", f"{duplicate:,}"),
        ("already in the store", f"{stored:,} (saved)"),
        *([("of other shards", f"{elsewhere:,}")] if elsewhere else []),
    ]
    results: dict[str, Any] = {
        "teacher": shop.fingerprint,
        "requested": requested,
        "duplicate": duplicate,
        "stored": stored,
        "elsewhere": elsewhere,
        "scored": purchase.scored,
        "images_encoded": purchase.images,
        "pairs_per_second": rate,
        **purchase.facts,
    }
    if rate is None or not seconds:
        return results, [*table, ("scored", f"{purchase.scored:,}")]
    facts, epochs = purchase.facts, shop.settings.in_loop_epochs
    results["in_loop"] = {"epochs": epochs, "pairs": epochs * requested, "seconds": round(epochs * requested / rate, 1)}
    shares = ", ".join(f"{part} {spent / seconds:.0%}" for part, spent in facts["seconds_in"].items())
    table += [
        ("scored", f"{purchase.scored:,} on {facts['device']}, {shop.settings.teacher.dtype}"),
        ("speed", f"{rate:,.0f} pairs/s, {purchase.images / seconds:,.1f} images/s"),
        ("time", f"{spoken(seconds)}: {shares}"),
        ("in the training loop", f"{spoken(results['in_loop']['seconds'])} for {epochs} epochs over these lists"),
    ]
    if facts["cut_captions"]["count"]:
        cut = facts["cut_captions"]
        table.append(("captions cut", f"{cut['count']:,} longer than {cut['max_text_tokens']} tokens (first: {cut['first'][0]})"))
    return results, table


def spoken(seconds: float) -> str:
    """A time as people say it: 8.3 s, 2 min 5 s, 3 h 20 min, 2 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, smaller, small in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= size:
            return f"{whole // size:,} {unit} {whole % size // small} {smaller}"
    return f"{whole // 60} min {whole % 60} s"


def _histogram_columns(histogram: dict[str, list[float]] | None) -> dict[str, list[float]]:
    """Middle of each bin, and the share of the positives' and of the candidates' scores in it."""
    if histogram is None:
        return {"score": [], "positives": [], "candidates": []}
    edges = histogram["edges"]
    columns = {"score": [round((low + high) / 2, 4) for low, high in pairwise(edges)]}
    for side in ("positives", "candidates"):
        total = sum(histogram[side]) or 1
        columns[side] = [round(count / total, 6) for count in histogram[side]]
    return columns


def _direction_rows(direction: str, found: dict[str, Any]) -> Rows:
    rows = [(f"{direction} queries", f"{found['queries']:,}")]
    if found["first_is_no_positive"] is not None:
        rows.append((f"{direction} a candidate above every positive", f"{found['first_is_no_positive']:.1%} of the queries"))
    if found["false_negative_share"] is not None:
        rows.append((f"{direction} probable false negatives", f"{found['false_negative_share']:.2%} of the candidates"))
    rows.append((f"{direction} valid candidates", f"{found['valid']:,}"))
    if found["kendall_tau"] is not None:
        rows.append((f"{direction} agreement with the miner", f"Kendall tau {found['kendall_tau']:.2f}"))
    for side, values in found["score_quantiles"].items():
        if values is not None:
            rows.append(
                (f"{direction} scores of {side}", f"{values['0.05']:.2f} to {values['0.95']:.2f}, median {values['0.5']:.2f}")
            )
    return rows
