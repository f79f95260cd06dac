"""How long a report of 1,000 queries takes to make and to open, and how large it is.

Run: `OMP_NUM_THREADS=1 CPRD_TEST_DATA=<folder with photos/> python -m tests.benchmarks.report_page`

A split of COCO 5K's size: 5,000 pictures of 640 x 480 (photographs, enlarged, cut and mirrored, since the test data are small),
25,000 captions, lists of 64 random candidates for every query of both directions. The gallery has 500 queries a direction.
"""

import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from cprd_pipeline.reporting.run import run
from cprd_pipeline.reporting.settings import ReportSettings
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import CAPTIONS, EVALUATED_LISTS, EVALUATED_QUERIES, IMAGES, POSITIVES, RANKINGS
from tests.reporting.browser import CHROMIUM, open_page

IMAGES_COUNT, CAPTIONS_EACH, K = 5_000, 5, 64
FIGURES = ("r1", "r5", "r10", "map_r", "r_precision", "binary_ndcg10", "mrr", "median_rank")
VISIT = """
const start = performance.now();
document.querySelector('button[data-filter="disagree"]').click();
const filtered = performance.now();
const box = document.querySelector("input[type=search]");
box.value = "dog"; box.dispatchEvent(new Event("input"));
const searched = performance.now();
box.value = ""; box.dispatchEvent(new Event("input")); document.querySelector('button[data-filter="all"]').click();
const nodes = document.querySelectorAll("*").length, before = performance.now(), more = document.querySelector(".more");
while (!more.hidden) more.click();
const all = performance.now() - before;
return { filter_ms: filtered - start, search_ms: searched - filtered, nodes_at_first: nodes, all_cards_ms: all };
"""


def photographs(folder: Path, random: np.random.Generator) -> list[bytes]:
    """JPEG files, no two alike."""
    sources = sorted((folder / "photos" / "images").glob("*.jpg"))
    made = []
    for number in range(IMAGES_COUNT):
        with Image.open(sources[number % len(sources)]) as photo:
            left, top = random.uniform(0, 0.2, 2) * photo.size
            part = photo.convert("RGB").crop((int(left), int(top), *photo.size)).resize((640, 480), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        (ImageOps.mirror(part) if number % 2 else part).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def write_corpus(folder: Path, data: Path, random: np.random.Generator) -> tuple[str, tuple[list[str], list[str]]]:
    """Its digest, image ids and caption ids; the captions are real ones with a number, so that no two are alike."""
    contents = photographs(data, random)
    sentences = [
        sentence["raw"]
        for image in json.loads((data / "photos" / "dataset_flickr8k.json").read_text(encoding="utf-8"))["images"]
        for sentence in image["sentences"]
    ]
    texts = [f"{sentences[row % len(sentences)]} ({row})" for row in range(IMAGES_COUNT * CAPTIONS_EACH)]
    images = [f"image-{row:05}" for row in range(IMAGES_COUNT)]
    captions = [f"caption-{row:06}" for row in range(len(texts))]
    writer = OutputWriter(folder, "corpus", {"image_root": "."}, {})
    digests, size = [bytes_digest(content) for content in contents], [[640] * IMAGES_COUNT, [480] * IMAGES_COUNT]
    table = [images, [None] * IMAGES_COUNT, contents, digests, *size, ["test"] * IMAGES_COUNT]
    writer.write_table("images.parquet", pa.table(table, schema=IMAGES))
    digests = [bytes_digest(text.encode()) for text in texts]
    writer.write_table("captions.parquet", pa.table([captions, texts, digests, ["test"] * len(texts)], schema=CAPTIONS))
    pairs = [np.repeat(images, CAPTIONS_EACH).tolist(), captions]
    writer.write_table("positives.parquet", pa.table(pairs, schema=POSITIVES))
    return writer.finish().digest, (images, captions)


def ranking(query: int, direction: str, ids: tuple[list[str], list[str]], random: np.random.Generator) -> dict[str, Any]:
    """Random candidates; a positive is a little better than they are."""
    asks, items = ids if direction == "i2t" else ids[::-1]
    positives = range(query * CAPTIONS_EACH, (query + 1) * CAPTIONS_EACH) if direction == "i2t" else [query // CAPTIONS_EACH]
    chosen = np.setdiff1d(random.choice(len(items), K, replace=False), positives)
    scores = np.sort(random.normal(-6, 3, len(chosen)))[::-1]
    return {
        "query_id": asks[query],
        "direction": direction,
        "candidate_ids": [items[row] for row in chosen],
        "teacher_scores": scores,
        "similarities": random.uniform(0, 0.4, len(chosen)),
        "false_negative": [False] * len(chosen),
        "n_valid": 0,
        "valid_cutoff": None,
        "positive_ids": [items[row] for row in positives],
        "positive_scores": random.normal(1, 1, len(positives)),
        "positive_similarities": random.uniform(0.2, 0.5, len(positives)),
    }


def write_run(root: Path, data: Path) -> None:
    """Corpus, rankings and evaluation, as the stages leave them."""
    random = np.random.default_rng(0)
    corpus, ids = write_corpus(root / "corpus", data, random)
    rows = [ranking(query, side, ids, random) for side, asks in zip(("i2t", "t2i"), ids, strict=True) for query in range(len(asks))]
    writer = OutputWriter(root / "rankings", "rankings", {}, {"corpus": corpus, "candidates": "random", "teacher": "random"})
    writer.write_table("both-00000.parquet", pa.Table.from_pylist(rows, schema=RANKINGS))
    rankings = writer.finish().digest
    settings = {"split": "test", "students": ["base", "cprd"], "reranked": "base", "rerank_depth": 16}
    writer = OutputWriter(root / "evaluation", "evaluation", settings, {"corpus": corpus, "rankings": rankings})
    for model in ("base", "cprd", "teacher"):
        writer.write_table(f"queries-{model}.parquet", results(rows, model, random))
    lists = [
        {key: row[key] for key in ("query_id", "direction")}
        | {"model": "cprd", "candidate_similarities": random.uniform(0, 0.4, len(row["candidate_ids"]))}
        | {"positive_similarities": random.uniform(0.2, 0.5, len(row["positive_ids"]))}
        for row in rows
    ]
    writer.write_table("lists-cprd.parquet", pa.Table.from_pylist(lists, schema=EVALUATED_LISTS))
    figures = {f"{side}_{name}": 50.0 for side in ("i2t", "t2i") for name in FIGURES}
    writer.write_json("metrics.json", {model: {"rsum": 300.0, **figures} for model in ("base", "cprd", "teacher")})
    writer.finish()


def results(rows: list[dict[str, Any]], model: str, random: np.random.Generator) -> pa.Table:
    """Ranks with many firsts."""
    ranks = random.geometric(0.3, len(rows))
    return pa.Table.from_pylist(
        [
            {key: row[key] for key in ("query_id", "direction")}
            | {"model": model, "group": 0, "rank": rank, "positive_ranks": [rank], "ndcg": None}
            for row, rank in zip(rows, ranks.tolist(), strict=True)
        ],
        schema=EVALUATED_QUERIES,
    )


def main() -> None:
    """Build the run, write the page, open it, print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["CPRD_CACHE"] = str(root / "cache")
        write_run(root, Path(os.environ["CPRD_TEST_DATA"]))
        paths = {name: root / name for name in ("corpus", "rankings", "evaluation")}
        settings = ReportSettings.model_validate(
            {**paths, "gallery": {"queries": 500}, "output": root / "report.html", "report": root / "report.json"}
        )
        start, start_cpu = time.perf_counter(), time.process_time()
        done = run(settings)
        print(f"{time.perf_counter() - start:.1f} s, {time.process_time() - start_cpu:.1f} s of CPU", done.seconds, done.results)
        if CHROMIUM is not None:
            visit(settings.output, root)


def visit(page: Path, folder: Path) -> None:
    """Open the page, beside an empty one, and use it."""
    empty = folder / "empty.html"
    empty.write_text("<!doctype html><body></body>", encoding="utf-8")
    for name, shown in (("empty page", empty), ("empty page", empty), ("report", page), ("report", page)):
        start = time.perf_counter()
        open_page(shown, folder)
        print(f"browser started, {name} opened and read out, browser ended: {time.perf_counter() - start:.2f} s")
    print(open_page(page, folder, drive=VISIT).answer)


if __name__ == "__main__":
    main()
