"""The stage's report, from the finished folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from cprd_pipeline.mining.advice import advise
from cprd_pipeline.mining.gpus import gpus_title
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.mining.sides import Sides
from cprd_pipeline.mining.summary import summarise
from cprd_pipeline.models.device import device_title
from cprd_pipeline.progress import announce
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.report import StageReport

_COLUMN = 18


@dataclass(frozen=True)
class Ran:
    """What only the run itself knows.

    Args:
        device: Of the encoder, by name.
        dtype: Of the encoder, by name.
        indexes: Of each direction that was searched: what `Search.describe` says, and its recall against exact search.
        seconds: Of each part.
    """

    device: str
    dtype: str
    indexes: Mapping[str, dict[str, Any]]
    seconds: Mapping[str, float]


def make_report(settings: MineSettings, sides: Sides, ran: Ran) -> StageReport:
    """Figures and table; advice goes to stderr.

    Args:
        settings: Of the stage.
        sides: Of the split.
        ran: Of this run.
    """
    folder = InputFolder(settings.output, "candidates")
    item_ids = {"i2t": _ids(sides.captions.ids, sides.captions.first), "t2i": _ids(sides.images.ids, sides.images.first)}
    directions = summarise(folder, settings.k, item_ids)
    advice = advise(directions, settings.filters, settings.k)
    for line in advice:
        announce(line)
    where = device_title(ran.device)
    size = sum(folder.part_path(part.name).stat().st_size for part in folder.manifest.parts)
    table = [("split, round", f"{settings.split}, {settings.round}"), ("", _cells("image to text", "text to image"))]
    table += [(what, _cells(*(form(directions[name]) for name in item_ids))) for what, form in _rows(settings.k)]
    table += _filter_rows(directions) + _index_rows(ran.indexes)
    table += [("device", f"{where}, {ran.dtype}"), ("candidates", f"{settings.output}, {size:,} bytes")]
    return StageReport(
        stage="mine",
        settings=settings.as_json(),
        results={
            "encoder": folder.manifest.inputs["encoder"],
            "round": settings.round,
            "device": where,
            "dtype": ran.dtype,
            "indexes": dict(ran.indexes),
            "bytes": size,
            "directions": directions,
            "advice": advice,
        },
        table=table,
        seconds=dict(ran.seconds),
    )


def _ids(ids: pa.LargeStringArray, rows: Int64[np.ndarray, " N"]) -> pa.LargeStringArray:
    return ids.take(pa.array(rows))


def _cells(*values: str) -> str:
    return "".join(f"{value:>{_COLUMN}}" for value in values)


def _rows(k: int) -> list[tuple[str, Callable[[dict[str, Any]], str]]]:
    """What the table says of each direction."""
    return [
        ("queries", lambda found: f"{found['queries']:,}"),
        ("candidates", lambda found: f"{found['candidates']:,}"),
        (f"lists shorter than {k}", lambda found: f"{found['short_lists']:,}"),
        (f"recall@{k}", lambda found: "-" if found["recall_at_k"] is None else f"{100 * found['recall_at_k']:.1f} %"),
        ("positives, 5 / 50 / 95 %", lambda found: _quantiles(found, "positives")),
        ("candidates, 5 / 50 / 95 %", lambda found: _quantiles(found, "candidates")),
        ("most frequent item, lists", lambda found: f"{found['hubs']['max']:,}"),
        ("items in no list", lambda found: f"{found['hubs']['never']:.1%}"),
    ]


def _quantiles(found: dict[str, Any], of: str) -> str:
    values = found["similarity_quantiles"][of]
    return "-" if values is None else " ".join(f"{values[share]:.2f}" for share in ("0.05", "0.5", "0.95"))


def _filter_rows(directions: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Counters that are not zero in both directions."""
    counters = {direction: {**found["dropped_by_filter"], "merged": found["merged"]} for direction, found in directions.items()}
    names = [name for name in next(iter(counters.values())) if any(counts[name] for counts in counters.values())]
    return [
        (
            "added by earlier rounds" if name == "merged" else f"dropped: {name.replace('_', ' ')}",
            _cells(*(f"{counts[name]:,}" for counts in counters.values())),
        )
        for name in names
    ]


def _index_rows(indexes: Mapping[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """What searched and where, recall of approximate indexes, and what became of older ones."""
    searches = sorted({f"{found['kind']} on {_place(found)}" for found in indexes.values()})
    rows = [("search", ", ".join(searches))] if searches else []
    rows += [
        (f"recall of {found['kind']}, {direction}", f"{found['recall']:.4f} against exact search")
        for direction, found in indexes.items()
        if "recall" in found
    ]
    freed = sum(found.get("freed_bytes", 0) for found in indexes.values())
    return [*rows, ("old indexes removed", f"{freed:,} bytes")] if freed else rows


def _place(found: dict[str, Any]) -> str:
    left = found["left_to_cpu"]
    return gpus_title(found["gpu_ids"]) + (f", {left:,} searches of more than these can on the cpu" if left else "")
