"""A small corpus and rankings over it, written to the file contracts."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import CAPTIONS, IMAGES, POSITIVES, RANKINGS

IMAGES_COUNT, CAPTIONS_EACH = 24, 2
_WORDS = "red green blue yellow purple white small large circle square triangle cross ring diamond".split()


def picture(seed: int) -> bytes:
    """A random 48 px PNG."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def write_corpus() -> Callable[[Path], Corpus]:
    """A function that writes a corpus of 24 pictures with two captions each; caption 3 repeats the text of caption 1."""

    def write(folder: Path) -> Corpus:
        files = [picture(number) for number in range(IMAGES_COUNT)]
        texts = [
            f"{_WORDS[n % 14]} {_WORDS[n * 5 % 13]} and {_WORDS[n * 3 % 11]} {_WORDS[n // 14]}" for n in range(2 * IMAGES_COUNT)
        ]
        texts[3] = texts[1]
        images = [(f"i{n}", None, file, bytes_digest(file), 48, 48, "train") for n, file in enumerate(files)]
        captions = [(f"c{n}", text, bytes_digest(text.encode()), "train") for n, text in enumerate(texts)]
        pairs = {(f"i{n // 2}", f"c{n}") for n in range(len(texts))} | {("i0", "c3"), ("i1", "c1")}
        writer = OutputWriter(folder, "corpus", {"image_root": "."}, {})
        writer.write_table(
            "images.parquet", pa.Table.from_pylist([dict(zip(IMAGES.names, row, strict=True)) for row in images], IMAGES)
        )
        rows = [dict(zip(CAPTIONS.names, row, strict=True)) for row in captions]
        writer.write_table("captions.parquet", pa.Table.from_pylist(rows, CAPTIONS))
        rows = [dict(zip(POSITIVES.names, row, strict=True)) for row in sorted(pairs)]
        writer.write_table("positives.parquet", pa.Table.from_pylist(rows, POSITIVES))
        writer.finish()
        return Corpus(folder)

    return write


@pytest.fixture
def corpus(tmp_path: Path, write_corpus: Callable[[Path], Corpus]) -> Corpus:
    """The small corpus."""
    return write_corpus(tmp_path / "corpus")


def ranking(query: str, direction: str, candidates: dict[str, float], positives: dict[str, float], **fields: Any) -> dict[str, Any]:
    """One row of rankings; candidates in the order given."""
    row = {
        "query_id": query,
        "direction": direction,
        "candidate_ids": list(candidates),
        "teacher_scores": list(candidates.values()),
        "similarities": [0.0] * len(candidates),
        "false_negative": [False] * len(candidates),
        "n_valid": 0,
        "valid_cutoff": None,
        "positive_ids": list(positives),
        "positive_scores": list(positives.values()),
        "positive_similarities": [0.0] * len(positives),
    }
    return row | fields


def write_rankings(folder: Path, rows: list[dict[str, Any]], corpus: Corpus, teacher: str = "t", roles: str = "both") -> None:
    """Write a rankings folder in one part."""
    settings = {"split": "train", **({"roles": roles} if roles == "each" else {})}
    writer = OutputWriter(folder, "rankings", settings, {"corpus": corpus.digest, "teacher": teacher})
    writer.write_table("i2t-00000.parquet", pa.Table.from_pylist(rows, RANKINGS))
    writer.finish()


def every_pair_rankings(corpus: Corpus, k: int) -> list[dict[str, Any]]:
    """Rankings in both directions with deterministic scores for k candidates of each query."""
    positive = {(int(i), int(c)) for i, c in corpus.positives}
    value = {(i, c): float(np.sin(1 + 7 * i + 3 * corpus.captions.first_with_digest[c]) * 4) for i in range(24) for c in range(48)}
    rows = []
    for i in range(24):
        others = sorted((c for c in range(48) if (i, c) not in positive), key=lambda c: -value[i, c])[:k]
        own = {f"c{c}": value[i, c] for c in range(48) if (i, c) in positive}
        valid = [value[i, c] for c in others if value[i, c] > 2]
        rows.append(
            ranking(
                f"i{i}",
                "i2t",
                {f"c{c}": value[i, c] for c in others},
                own,
                n_valid=len(valid),
                valid_cutoff=min(valid, default=None),
            )
        )
    for c in range(48):
        others = sorted((i for i in range(24) if (i, c) not in positive), key=lambda i: -value[i, c])[:k]
        own = {f"i{i}": value[i, c] for i in range(24) if (i, c) in positive}
        rows.append(ranking(f"c{c}", "t2i", {f"i{i}": value[i, c] for i in others}, own))
    return rows
