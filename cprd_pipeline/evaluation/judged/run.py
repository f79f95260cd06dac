"""All judged sets that the settings name, for one student."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.cxc import evaluate_cxc, read_cxc
from cprd_pipeline.evaluation.judged.eccv import evaluate_eccv, read_eccv
from cprd_pipeline.evaluation.judged.flickr8k import evaluate_flickr8k, read_flickr8k
from cprd_pipeline.evaluation.judged.hard_negatives import EmbedTexts, HardNegatives, evaluate_hard_negatives
from cprd_pipeline.evaluation.judged.negclip import read_negclip
from cprd_pipeline.evaluation.judged.result import JudgedResult
from cprd_pipeline.evaluation.judged.sugarcrepe import read_sugarcrepe
from cprd_pipeline.evaluation.judged.valse import read_valse
from cprd_pipeline.evaluation.reality import Protocol, interval_of_mean
from cprd_pipeline.evaluation.settings import EvaluateSettings
from cprd_pipeline.evaluation.students import EmbeddedStudent
from cprd_pipeline.store.atomic import checksum
from cprd_pipeline.store.fingerprint import json_digest

_HARD_NEGATIVES: dict[str, Callable[[Path], HardNegatives]] = {
    "sugarcrepe": read_sugarcrepe,
    "valse": read_valse,
    "negclip": read_negclip,
}

Judgments = dict[str, dict[str, Any]]
"""For each set its `figures`, their `intervals`, its `counts`, and the first `unknown` ids."""


def judged_digests(settings: EvaluateSettings) -> dict[str, str]:
    """Digest of each set's files.

    Raises:
        CorpusError: There is no such file or folder.
    """
    return {f"judged {name}": _digest(path) for name, path in settings.judged.sets.items()}


def evaluate_judged(
    settings: EvaluateSettings, corpus: Corpus, split: Split, student: EmbeddedStudent, embed_texts: EmbedTexts
) -> Judgments:
    """Every set for one student.

    Raises:
        CorpusError: A file is damaged, or names too many ids that the split lacks.
    """
    limit = settings.judged.unknown_limit
    found: dict[str, JudgedResult] = {}
    for name, path in settings.judged.sets.items():
        if name == "eccv":
            found[name] = evaluate_eccv(read_eccv(path), corpus, split, student, unknown_limit=limit)
        elif name == "cxc":
            found[name] = evaluate_cxc(read_cxc(path), corpus, split, student, seed=settings.seed, unknown_limit=limit)
        elif name == "flickr8k":
            found[name] = evaluate_flickr8k(read_flickr8k(path), corpus, split, student, unknown_limit=limit)
        else:
            pairs = _HARD_NEGATIVES[name](path)
            found[name] = evaluate_hard_negatives(pairs, corpus, split, student, embed_texts, unknown_limit=limit)
    return {
        name: {
            "figures": {figure: round(value, 4) for figure, value in one.figures.items()},
            "intervals": _intervals(one, Protocol(settings.replicates, settings.seed)),
            "counts": one.counts,
            "unknown": list(one.unknown),
        }
        for name, one in found.items()
    }


def _intervals(one: JudgedResult, protocol: Protocol) -> dict[str, list[float]]:
    """Of each figure that is a mean over queries or pairs, drawn anew one by one."""
    values = {
        (name if side == "pairs" else f"{side}_{name}"): found
        for side, queries in one.queries.items()
        for name, found in queries.values.items()
    }
    if "pairs" in one.queries:
        kinds = np.array([pair.partition("/")[0] for pair in one.queries["pairs"].ids], dtype=np.object_)
        values |= {kind: one.queries["pairs"].values["correct"][kinds == kind] for kind in dict.fromkeys(kinds.tolist())}
    found = {name: interval_of_mean(values[name], protocol) for name in one.figures if name in values}
    return {name: bounds for name, bounds in found.items() if bounds is not None}


def judged_rows(
    metrics: dict[str, dict[str, float]], sets: dict[str, Path], judgments: dict[str, Judgments]
) -> list[tuple[str, str]]:
    """For the terminal: a line a figure, a column a student.

    Args:
        metrics: Of the students, their judged figures named `<set>_<figure>`.
        sets: Those that were evaluated.
        judgments: Of each student.
    """
    rows = []
    any_student = next(iter(judgments.values()))
    for name in sets:
        rows.append((name, "".join(f"{student[:10]:>11}" for student in metrics)))
        for figure in any_student[name]["figures"]:
            rows.append((f"  {figure}", "".join(f"{figures[f'{name}_{figure}']:>11.2f}" for figures in metrics.values())))
            bounds = [judgments[student][name]["intervals"].get(figure) for student in metrics]
            if all(bounds):
                rows.append(("", "".join(f"{f'±{(high - low) / 2:.2f}':>11}" for low, high in (pair for pair in bounds if pair))))
        # Counts are the same for all students.
        unknown = sum(count for key, count in any_student[name]["counts"].items() if key.startswith("unknown"))
        if unknown:
            rows.append(("  unknown ids", f"{unknown:,}, the first {', '.join(any_student[name]['unknown'])}"))
    return rows


def _digest(path: Path) -> str:
    if not path.exists():
        raise CorpusError(f"{path}: there is no such file or folder", expected="a judged set", do="mend `judged` in the settings")
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return json_digest([[file.name, checksum(file)] for file in files])
