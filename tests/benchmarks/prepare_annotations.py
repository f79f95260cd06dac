"""Seconds and memory of everything in `prepare` but the pictures: annotations as large as COCO's, read, checked, cleaned, written.

Run: `OMP_NUM_THREADS=1 python -m tests.benchmarks.prepare_annotations`

The files are synthesised (123,287 images, 616,767 captions of words drawn by Zipf's law, a tenth of them generic ones that repeat);
images are given made-up digests in place of being decoded. Each format is read in a process of its own, which tells its time and
its peak memory. With `--holdout` a tenth of the images is drawn for two further splits.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cprd_pipeline.corpus.inspection import Inspected
from cprd_pipeline.corpus.intake import Intake
from cprd_pipeline.corpus.pause import without_collector
from cprd_pipeline.corpus.settings import HoldoutSettings, PrepareSettings
from cprd_pipeline.corpus.tables import build_tables
from cprd_pipeline.store.output import OutputWriter

IMAGES, CAPTIONS = 123_287, 616_767
SOURCES = ("karpathy", "coco_captions", "flickr_tokens", "csv", "jsonl", "parquet")


def captions(images: int, count: int) -> Iterator[tuple[int, str]]:
    """Image number and text of each caption, five an image and some more for the first ones."""
    draws = np.random.default_rng(0)
    words = [f"word{number}" if number > 200 else f"w{number}" for number in range(20_000)]
    picked = np.minimum(draws.zipf(1.3, size=(count, 11)), len(words)) - 1
    generic = draws.random(count) < 0.1
    for number in range(count):
        kinds = picked[number, :3] % 40 if generic[number] else picked[number]
        yield number % images, "A " + " ".join(words[kind] for kind in kinds) + "."


def write_source(name: str, folder: Path, images: int, count: int) -> Path:
    """One file of a format."""
    texts: list[list[str]] = [[] for _ in range(images)]
    for image, text in captions(images, count):
        texts[image].append(text)
    path = folder / f"{name}.txt"
    names = [f"COCO_train2014_{number:012d}.jpg" for number in range(images)]
    numbers = itertools.count()
    if name == "karpathy":
        entries = [
            {
                "filepath": "train2014",
                "filename": file,
                "cocoid": number,
                "imgid": number,
                "split": ("val", "test", "restval", "train")[min(number % 25, 3)],
                "sentences": [
                    {"raw": text, "tokens": text.lower().strip(".").split(), "imgid": number, "sentid": next(numbers)}
                    for text in texts[number]
                ],
            }
            for number, file in enumerate(names)
        ]
        path.write_text(json.dumps({"images": entries, "dataset": "coco"}))
    elif name == "coco_captions":
        listed = [
            {"id": n, "file_name": file, "coco_url": f"http://images.cocodataset.org/train2014/{file}", "height": 480, "width": 640}
            for n, file in enumerate(names)
        ]
        notes = [{"image_id": n, "id": next(numbers), "caption": text} for n in range(images) for text in texts[n]]
        path.write_text(json.dumps({"info": {}, "images": listed, "licenses": [], "annotations": notes}))
    elif name == "flickr_tokens":
        path.write_text("".join(f"{file}#{c}\t{text}\n" for n, file in enumerate(names) for c, text in enumerate(texts[n])))
    elif name == "csv":
        path.write_text("image,caption\n" + "".join(f'{file},"{text}"\n' for n, file in enumerate(names) for text in texts[n]))
    elif name == "jsonl":
        path.write_text("".join(json.dumps({"image": file, "captions": texts[n]}) + "\n" for n, file in enumerate(names)))
    else:
        pq.write_table(pa.table({"path": names, "captions": texts}), path)
    return path


def measure(name: str, path: Path, shares: dict[str, float]) -> dict[str, float]:
    """Seconds of each step, and the peak memory of this process in GB."""
    files = {"paths": path, "images": path.parent}
    settings = PrepareSettings.model_validate(
        {"source": name, "files": files, "bad_captions": "skip", "output": path.parent / "out"}
    )
    started = time.perf_counter()
    taken = Intake(settings).read()
    read = time.perf_counter()
    seen = np.random.default_rng(1).integers(0, 256, (len(taken.records.images), 16), dtype=np.uint8)
    inspected = [Inspected(digest.tobytes(), 640, 480) for digest in seen]
    made = time.perf_counter()
    with without_collector():
        tables = build_tables(taken.records, inspected, taken.bad_captions, HoldoutSettings(shares=shares))
    built = time.perf_counter()
    writer = OutputWriter(settings.output, "corpus", {"image_root": "."}, {"benchmark": name})
    for part in ("images", "captions", "positives"):
        writer.write_table(f"{part}.parquet", getattr(tables, part))
    writer.finish()
    done = time.perf_counter()
    return {
        "images": tables.counts["images"],
        "captions": tables.counts["captions"],
        "positives": tables.counts["positives"],
        "held out": sum(n["images"] for split, n in tables.counts["splits"].items() if split.startswith("held")),
        "read": round(read - started, 2),
        "tables": round(built - made, 2),
        "write": round(done - built, 2),
        "total": round(done - started - (made - read), 2),
        "cpu": round(time.process_time(), 2),
        "gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    """Write each source, measure it in a process of its own, print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--captions", type=int, default=CAPTIONS)
    parser.add_argument("--measure", nargs=2)
    parser.add_argument("--holdout", action="store_true")
    arguments = parser.parse_args()
    shares = {"held_a": 0.05, "held_b": 0.05} if arguments.holdout else {}
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], Path(arguments.measure[1]), shares)))
        return
    print(
        "| source | file MB | images | captions | positives | held out | read s | tables s | write s | total s | CPU s | peak GB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name in SOURCES:
        with tempfile.TemporaryDirectory() as folder:
            path = write_source(name, Path(folder), arguments.images, arguments.captions)
            command = [sys.executable, "-m", "tests.benchmarks.prepare_annotations", "--measure", name, str(path)]
            command += ["--holdout"] if arguments.holdout else []
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            cells = [name, f"{path.stat().st_size / 1e6:.0f}", *(f"{value:,}" for value in found.values())]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
